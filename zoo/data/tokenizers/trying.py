"""Tries a tokenizer of somebody else in a process of its own: `python -I trying.py KIND`; trial.py starts it.

Its file comes in as bytes and one JSON object goes out: {"pieces": 32000}, or {"error": "..."}. The libraries
that read it are Rust and C++: they may panic, run out of memory or out of their stack, or never end, and of
the regular expressions in a tokenizer.json anyone of them may take a text's length squared, or two to the
power of it. Whatever happens, happens here, within limits.

It imports nothing of zoo, so that it starts in a tenth of a second.
"""

import contextlib
import json
import os
import resource
import signal
import sys
import time

MEMORY = 2 << 30  # bytes
SECONDS = 10.0  # of computing
LENGTH = 1 << 14  # characters of a text that is there to take long
SLOW = 0.5  # seconds of computing for one of them; published ones take a tenth, squares take more
TEXTS = ["zoo", "A text, 2024!\n\n\tIt's \u00e9\u4e2d\u6587 \U0001f389\u200d.", "<0x0A> \u2581 [CLS] <s>", ""]
# The same over and over, with another character behind it at which a match fails that came so far.
LONG = [
    same * (LENGTH // len(same)) + "!"
    for same in ("a", "A", "1", ".", " ", "\n", "\u4e2d", " \n", "a1", "'s")
]


def whole(raw: bytes) -> int:
    """The number of pieces of a tokenizer.json."""
    from tokenizers import Tokenizer

    made = Tokenizer.from_str(raw.decode("utf-8"))
    ids = set(made.get_vocab(with_added_tokens=True).values())
    made.no_truncation()
    made.no_padding()
    check(ids, lambda text: made.encode(text).ids, TEXTS)
    made.encode_special_tokens = True
    check(ids, lambda text: made.encode(text, add_special_tokens=False).ids, TEXTS + LONG)
    made.decode(sorted(ids)[:1000])
    return len(ids)


def sentencepiece(raw: bytes) -> int:
    """The number of pieces of a SentencePiece model."""
    from sentencepiece import SentencePieceProcessor

    made = SentencePieceProcessor(model_proto=raw)
    ids = range(made.vocab_size())
    if max(made.eos_id(), made.bos_id(), made.unk_id()) >= len(ids):
        raise ValueError("a mark's number is none of its pieces'")
    check(ids, made.encode, TEXTS + LONG)
    for number in ids:
        made.id_to_piece(number)
    made.decode(list(ids)[:1000])
    return len(ids)


def check(ids, encode, texts) -> None:
    """ValueError for no pieces, numbers far beyond their count, tokens that are none of them, and a text that
    takes long."""
    if not ids:
        raise ValueError("no pieces in it")
    if max(ids) >= 2 * len(ids) + 1000:
        raise ValueError(f"{len(ids)} pieces with numbers up to {max(ids)}")
    for text in texts:
        started = time.process_time()
        if strange := [token for token in encode(text) if token not in ids]:
            raise ValueError(f"it makes a token {strange[0]}, which is none of its pieces")
        if (took := time.process_time() - started) > SLOW:
            raise ValueError(f"{took:.1f} s for {len(text):,} characters")


KINDS = {"whole": whole, "sentencepiece": sentencepiece}


def main(kind: str) -> None:
    """Answers what comes in."""
    with contextlib.suppress(ValueError, OSError):  # where an operating system has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # which ends this process: nothing can catch it
    answer = os.dup(1)
    os.dup2(2, 1)  # a library may print
    try:
        said = {"pieces": KINDS[kind](sys.stdin.buffer.read())}
    except BaseException as error:  # a panic of Rust is no Exception
        said = {"error": " ".join(str(error).split())[:200] or type(error).__name__}
    os.write(answer, json.dumps(said).encode())


if __name__ == "__main__":
    main(sys.argv[1])
