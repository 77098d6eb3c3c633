"""Texts to texts, with a model of pairs: translations, summaries, answers."""

from collections.abc import Sequence

import numpy as np

from zoo.data.examples.encoding import WRAPS, encode_all
from zoo.data.examples.record import Record
from zoo.errors import UserError
from zoo.inference.beam import Beam, beam_search
from zoo.inference.generate import bucket, padded

BEAM = Beam(size=5, length_penalty=1.0, length_offset=0.0)  # fairseq's usual: five texts, the mean per word


def translate(
    model,
    params,
    tokenizer,
    texts: Sequence[str],
    *,
    places: Sequence[str] = (),
    beam: Beam = BEAM,
    max_new_tokens: int = 128,
    wrap: str = "none",
    batch_size: int = 32,
) -> list[str]:
    """What the model writes for each of `texts`, in their order.

    `wrap` is the data's: which marks stood around the sources that the model was trained on. Texts of like
    length are read together, `batch_size` at a time.
    Raises DataError, with the text's place (or its number), for one without words or with characters that
    the vocabulary lacks, and UserError for a tokenizer without a mark to begin and end with.
    """
    begin = tokenizer.eot if tokenizer.bos is None else tokenizer.bos
    if begin is None or tokenizer.eot is None:
        raise UserError(f"a {tokenizer.name} tokenizer without marks cannot end a text; make one with marks")
    first, last = WRAPS[wrap]
    places = places or [f"text {number}" for number in range(1, len(texts) + 1)]
    records = [Record({"source": text}, place) for text, place in zip(texts, places, strict=True)]
    sources = [
        [begin] * first + words_S.tolist() + [tokenizer.eot] * last
        for words_S in encode_all(records, "source", tokenizer)
    ]

    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    written = [""] * len(sources)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        source_BS, lengths_B = padded([sources[i] for i in chosen], bucket(len(sources[chosen[-1]])))
        inputs = {"source": source_BS, "source_lengths": lengths_B}
        inputs["tokens"] = np.full((len(chosen), 1), begin, np.int32)
        found = beam_search(
            model, params, inputs, max_new_tokens=max_new_tokens, end=tokenizer.eot, beam=beam
        )
        rows = zip(
            chosen, np.asarray(found.tokens_BCT[:, 0]), np.asarray(found.lengths_BC[:, 0]), strict=True
        )
        for i, words_T, length in rows:
            written[i] = tokenizer.decode(words_T[:length])
    return written
