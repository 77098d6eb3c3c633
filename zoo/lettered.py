"""A parameter and its letters: the box in which a Linen module declares it, and what is known of it without
its array. What the letters mean, and where they are placed, is in zoo/sharding.py.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax

# A vocabulary is stored rounded up to this multiple so that it divides over any mesh and fills the
# matrix units; 50,257 words are stored as 50,304. Everything shown or exported leaves the rest out.
STORED_MULTIPLE = {"V": 128}


def stored_size(letter: str, size: int) -> int:
    """How many entries an array holds for `size` visible ones."""
    multiple = STORED_MULTIPLE.get(letter, 1)
    return -(-size // multiple) * multiple


@dataclass(frozen=True)
class ParamSpec:
    """One parameter without its array. Not a tree node, so a tree of these has them as leaves.

    `shape` is as stored, `visible_shape` without the vocabulary's padding. `contracted` counts the
    letters (after a leading N) that a matmul sums over; 0 says that the array is no matmul kernel.
    """

    letters: str
    shape: tuple[int, ...]
    visible_shape: tuple[int, ...]
    dtype: Any
    contracted: int = 0

    @property
    def size(self) -> int:
        """Visible entries."""
        return math.prod(self.visible_shape)

    def visible(self, array):
        """`array` without the padding of its vocabulary."""
        return array[tuple(slice(0, size) for size in self.visible_shape)]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["value"],
    meta_fields=["letters", "visible_shape", "contracted"],
)
@dataclass(frozen=True)
class Lettered(nn.meta.AxisMetadata):
    """The box in which a Linen module declares a parameter: the array with its letters."""

    value: Any
    letters: str
    visible_shape: tuple[int, ...]
    contracted: int = 0

    def unbox(self):
        return self.value

    def replace_boxed(self, val):
        return dataclasses.replace(self, value=val)

    def add_axis(self, index, params):
        """A scan over layers stacks the parameter: its letter joins in front."""
        shape, size = self.visible_shape, self.value.shape[index]
        return dataclasses.replace(
            self,
            letters=self.letters[:index] + params[nn.meta.PARTITION_NAME] + self.letters[index:],
            visible_shape=shape[:index] + (size,) + shape[index:],
        )

    def remove_axis(self, index, params):
        shape = self.visible_shape
        return dataclasses.replace(
            self,
            letters=self.letters[:index] + self.letters[index + 1 :],
            visible_shape=shape[:index] + shape[index + 1 :],
        )


def specs(boxed) -> Any:
    """The ParamSpec tree of a tree of boxes (of arrays or of ShapeDtypeStructs)."""

    def spec(box: Any) -> ParamSpec:
        return ParamSpec(
            box.letters, tuple(box.value.shape), box.visible_shape, box.value.dtype, box.contracted
        )

    return nn.meta.map_axis_meta(spec, boxed)
