"""What may be seen, in the few words that kernels understand."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from zoo.sees import All, Both, Causal, Choice, Lengths, Sees, Segments, Window


def parts(sees: Sees) -> Iterator[Sees]:
    """The rules that a rule consists of, all of which must allow it."""
    if isinstance(sees, Both):
        yield from parts(sees.one)
        yield from parts(sees.other)
    else:
        yield sees


def choice_in(sees: Sees) -> Choice | None:
    """The first of its rules that is one of two, as a traced value says."""
    return next((part for part in parts(sees) if isinstance(part, Choice)), None)


def alternatives(sees: Sees) -> list[Sees]:
    """What may be seen without a choice: one rule, or where `choice_in` finds one, its two in their order."""
    choice = choice_in(sees)
    if choice is None:
        return [sees]
    return [with_choice(sees, choice, chosen) for chosen in (choice.one, choice.other)]


def with_choice(sees: Sees, choice: Choice, chosen: Sees) -> Sees:
    """`sees` with `chosen` in the place of `choice`."""
    if isinstance(sees, Both):
        return Both(*(with_choice(part, choice, chosen) for part in (sees.one, sees.other)))
    return chosen if sees is choice else sees


@dataclass(frozen=True)
class Seen:
    """One alternative in a kernel's words: what does not depend on the batch, and what does."""

    causal: bool = False
    window: int | None = None
    segments: jax.Array | None = None
    """Ids [B, T], 0 for padding."""
    lengths: jax.Array | None = None
    """[B]."""

    @classmethod
    def of(cls, sees: Sees) -> "Seen":
        """ValueError for what these words cannot say: the reason, to be read behind "XLA: "."""
        found = list(parts(sees))
        for part in found:
            if type(part) not in (All, Causal, Window, Segments, Lengths):
                raise ValueError(f"kernels do not know what {type(part).__name__} sees")

        def values(kind, name):
            return [getattr(part, name) for part in found if isinstance(part, kind)]

        segments, lengths = values(Segments, "ids_BT"), values(Lengths, "lengths_B")
        if len(segments) > 1 or len(lengths) > 1:
            raise ValueError("kernels take documents and lengths once, and here are several")
        return cls(
            causal=any(isinstance(part, Causal) for part in found),
            window=min(values(Window, "size"), default=None),
            segments=segments[0] if segments else None,
            lengths=lengths[0] if lengths else None,
        )

    def __str__(self) -> str:
        return ", ".join(
            ["causal" if self.causal else "both sides"]
            + [f"a window of {self.window}"] * (self.window is not None)
            + ["packed documents"] * (self.segments is not None)
            + ["lengths"] * (self.lengths is not None)
        )

    @property
    def is_nothing(self) -> bool:
        """Whether no position sees anything, as of the window of a model that has no layers with windows."""
        return self.window is not None and self.window < 1

    @property
    def may_be_nothing(self) -> bool:
        """Whether some position may see nothing, not even itself."""
        return self.segments is not None or self.lengths is not None

    def ids(self, size: int) -> tuple[jax.Array, jax.Array]:
        """Ids of queries and of keys, [B or 1, T]: equal where one may see the other, 0 for keys that nobody
        may see. What a query with id 0 sees is not defined."""
        query_BT = jnp.ones((1, size), jnp.int32) if self.segments is None else self.segments
        if self.lengths is None:
            return query_BT, query_BT
        return query_BT, jnp.where(jnp.arange(size) < self.lengths[:, None], query_BT, 0)
