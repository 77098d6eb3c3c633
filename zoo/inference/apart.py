"""Layers apart: parameters as a program wants them that reads them once for every token.

    model, params = apart(*zoo.from_pretrained("gpt2/")[:2])

Layers are stacked, [N, D, F], and a loop over them takes each layer's kernels out of the stack. On a CPU that
is a copy, which costs as much as a third of the time of a token: GPT-2 small, 22 ms against 14 without the
output layer (benchmarks/README.md). Apart, each layer's kernels are arrays of their own, and the loop is
unrolled; what takes longer is to compile.
"""

import dataclasses

import jax

from zoo import models
from zoo.tree import named_leaves, nested


def apart(model, params):
    """(model, params) that compute the same, with a tuple of N arrays where one began with the letter N.

    `params` are given up, like an argument that is donated: an array is deleted once its layers are out, so
    that no more than one is there twice. Elsewhere than on one CPU, and where no layers are stacked, both
    stay as they are; and where weights are whole numbers. Those become floats when a layer is taken out of
    its stack, in place of the copy; apart, the compiler makes floats of all layers before the first token.
    """
    specs, leaves = named_leaves(model.abstract()), named_leaves(params)
    is_one_cpu = all(device.platform == "cpu" for x in leaves.values() for device in _devices(x))
    is_one_cpu &= len({device for x in leaves.values() for device in _devices(x)}) <= 1
    if model.bits or not is_one_cpu or not any(spec.letters.startswith("N") for spec in specs.values()):
        return model, params
    unrolled = dataclasses.replace(models.create(_unrolled(model.config)), lora=model.lora)
    split = {name: _split(x) if specs[name].letters.startswith("N") else x for name, x in leaves.items()}
    return unrolled, nested(split)


def _devices(x):
    return x.devices() if isinstance(x, jax.Array) else jax.local_devices()[:1]


def _unrolled(config):
    """A configuration, and of a head its encoder's, with the loop over layers unrolled whole."""
    changes = {"layer_unroll": 0} if hasattr(config, "layer_unroll") else {}
    if hasattr(config, "encoder"):
        changes["encoder"] = _unrolled(config.encoder)
    return dataclasses.replace(config, **changes)


def _split(x) -> tuple:
    """The layers of a stacked array, which is deleted."""
    layers = jax.block_until_ready(tuple(jax.numpy.asarray(x)))
    if isinstance(x, jax.Array):
        x.delete()
    return layers
