"""Text as it is written, a few tokens at a time: what `generate` gives at once.

The state stays on the device between the pieces; of an attention model it has room for the whole text, so
prompt and continuation together must fit its context.
"""

import functools
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from zoo.errors import UserError
from zoo.inference.generate import (
    GREEDY,
    Sampling,
    bucket,
    check,
    numbers,
    padded,
    read_prompts,
    row_keys,
    write_tokens,
)

PIECE = 16  # tokens between two looks at the device


def stream(
    model,
    params,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    eot: int | None = None,
) -> Iterator[list[int]]:
    """The tokens after `prompt`, piece by piece, ending before `eot`: together those of `generate`.

    Raises UserError as `generate` does, and where prompt and continuation do not fit the context together.
    """
    check(model, [prompt])
    context = getattr(model.config, "max_length", math.inf)
    if len(prompt) + max_new_tokens > context:
        raise UserError(
            f"{len(prompt)} tokens of prompt and {max_new_tokens} new ones do not fit the context of "
            f"{context}; ask for fewer, or do not stream"
        )
    tokens_BT, lengths_B = padded([prompt], int(min(bucket(len(prompt)), context)))
    room = bucket(max_new_tokens)
    x_BD, state = _read(model, room, params, tokens_BT, lengths_B)
    keys_B, how = row_keys(seed, 1), numbers(sampling, model)
    for written in range(0, max_new_tokens, PIECE):
        count = min(PIECE, max_new_tokens - written)
        new_BT, x_BD, state = _write(model, PIECE, params, x_BD, state, keys_B, written, count, *how)
        new = np.asarray(new_BT)[0, :count].tolist()
        if eot in new:
            yield new[: new.index(eot)]
            return
        yield new


_read = jax.jit(read_prompts, static_argnums=(0, 1))
_write = functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)(write_tokens)
