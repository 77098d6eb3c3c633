"""Who may see whom in attention.

What a position may see is a value, not a flag and not a matrix built by the caller. Values combine:
`Causal() & Segments(ids)` is the attention of packed documents.

    Causal()            Causal() & Window(2)      Segments([1 1 2 2])
    x . . .             x . . .                   x x . .
    x x . .             x x . .                   x x . .
    x x x .             . x x .                   . . x x
    x x x x             . . x x                   . . x x          (rows look, columns are seen)
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp


class Sees:
    """Which of the attended positions S each position T may look at."""

    def mask_BTS(self, query_BT, key_BS):
        """Booleans, given the positions of both sides (the first dimension may be 1)."""
        raise NotImplementedError

    def __and__(self, other: "Sees") -> "Sees":
        return Both(self, other)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class All(Sees):
    """Everything."""

    def mask_BTS(self, query_BT, key_BS):
        return jnp.ones((1, query_BT.shape[1], key_BS.shape[1]), bool)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Causal(Sees):
    """Itself and what came before."""

    def mask_BTS(self, query_BT, key_BS):
        return key_BS[:, None, :] <= query_BT[:, :, None]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Window(Sees):
    """Fewer than `size` positions away, on either side; with Causal, the last `size` positions."""

    size: int = field(metadata={"static": True})

    def mask_BTS(self, query_BT, key_BS):
        return jnp.abs(query_BT[:, :, None] - key_BS[:, None, :]) < self.size


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Segments(Sees):
    """The same document of a packed row. Ids count from 1; 0 is padding, seen by nobody."""

    ids_BT: jax.Array

    def mask_BTS(self, query_BT, key_BS):
        same = self.ids_BT[:, :, None] == self.ids_BT[:, None, :]
        return same & (self.ids_BT > 0)[:, None, :]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Lengths(Sees):
    """The first `lengths` positions of each row."""

    lengths_B: jax.Array

    def mask_BTS(self, query_BT, key_BS):
        return (key_BS < self.lengths_B[:, None])[:, None, :]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Choice(Sees):
    """`one` where `is_one`, a traced boolean, and else `other`: what layers that share a program may see."""

    is_one: jax.Array
    one: Sees
    other: Sees

    def mask_BTS(self, query_BT, key_BS):
        one_BTS, other_BTS = (rule.mask_BTS(query_BT, key_BS) for rule in (self.one, self.other))
        return jnp.where(self.is_one, one_BTS, other_BTS)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Both(Sees):
    """What two rules both allow."""

    one: Sees
    other: Sees

    def mask_BTS(self, query_BT, key_BS):
        return self.one.mask_BTS(query_BT, key_BS) & self.other.mask_BTS(query_BT, key_BS)
