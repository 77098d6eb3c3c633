"""Text as it is written, a few tokens at a time: what `generate` gives at once.

The state stays on the device between the pieces.
"""

from collections.abc import Iterator, Sequence

from zoo.inference.generate import PIECE, Text, row_keys, write_pieces
from zoo.inference.sampling import GREEDY, Sampling
from zoo.inference.stop import Stop


def stream(
    model,
    params,
    prompt: Sequence[int],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    seed: int = 0,
    eot: int | Sequence[int] | None = None,
    stop: Stop | None = None,
    cache_dtype: str | None = None,
) -> Iterator[Text]:
    """The text after `prompt` whenever a piece is written: one Text that grows, at last `generate`'s.

    Raises UserError as `complete` does.
    """
    text = Text(list(prompt))
    settings = {"sampling": sampling, "keys_B": row_keys(seed, None, 1), "eot": eot, "stop": stop}
    pieces = write_pieces(
        *(model, params, [text]),
        max_new_tokens=max_new_tokens,
        piece=PIECE,
        cache_dtype=cache_dtype,
        **settings,
    )
    for _ in pieces:
        yield text
