"""The optimizer's state as the sharding table sees it."""

import jax
import optax

from zoo.lettered import ParamSpec


def state_specs(tx: optax.GradientTransformation, specs):
    """The tree of `tx.init(params)` with a ParamSpec for every array, so that one table places it all.

    An array whose path ends in a parameter's has that parameter's letters, "1" where it keeps a
    dimension at size one. Any other is a number per run, or ValueError: it would need letters of its own.
    """
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), specs)
    at = dict(jax.tree_util.tree_leaves_with_path(specs))

    def describe(path, leaf):
        spec = next((at[path[i:]] for i in range(len(path)) if path[i:] in at), None)
        if spec is None and leaf.shape == ():
            return ParamSpec("", (), (), leaf.dtype)
        if spec is None or len(leaf.shape) != len(spec.shape):
            raise ValueError(
                f"optimizer state {jax.tree_util.keystr(path)} of shape {leaf.shape} is neither a scalar nor "
                f"shaped like a parameter; keep its parameter's dimensions, at size one where reduced"
            )
        kept = [size == full for size, full in zip(leaf.shape, spec.shape, strict=True)]
        return ParamSpec(
            "".join(letter if keep else "1" for letter, keep in zip(spec.letters, kept, strict=True)),
            leaf.shape,
            tuple(size if keep else 1 for size, keep in zip(spec.visible_shape, kept, strict=True)),
            leaf.dtype,
        )

    return jax.tree_util.tree_map_with_path(describe, jax.eval_shape(tx.init, params))
