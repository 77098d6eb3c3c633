"""Which tokenizer a corpus or a set of examples gets: from vocabulary files, ready-made, or built from its
training part."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zoo.data.cache import cached
from zoo.data.corpus import Corpus, part_digest
from zoo.data.examples.config import ExamplesConfig
from zoo.data.examples.encoding import needs_marks, texts_of, words_of
from zoo.data.examples.record import Parts
from zoo.data.files import Document
from zoo.data.tokenizers import Tokenizer, read_vocabulary, word_piece_training
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.data.tokenizers.char import CharTokenizer
from zoo.data.tokenizers.sentence_piece import SETTINGS, SentencePieceTokenizer, train
from zoo.data.tokenizers.word import BEGIN, END, EXAMPLES, WordTokenizer
from zoo.data.tokenizers.word_piece import WordPieceTokenizer
from zoo.errors import DataError

log = logging.getLogger("zoo.data")


def make_tokenizer(
    name: str, corpus: Corpus, *, vocab_path: str, vocab_size: int, min_count: int = 1
) -> Tokenizer:
    """The tokenizer `name` for texts that are read line by line, from `vocab_path` where that is given."""
    if vocab_path:
        return read_vocabulary(name, Path(vocab_path))
    if name == "char":
        texts = (document.text for part in ("train", "valid") for document in corpus.parts[part])
        return CharTokenizer.of(texts, has_eot=max(corpus.num_documents.values()) > 1)
    if name == "sentencepiece":
        return _trained(corpus.name, corpus.parts["train"], vocab_size)
    if name == "wordpiece":
        return _trained_pieces(corpus.name, corpus.parts["train"], vocab_size)
    if name == "word":
        texts = (document.text for document in corpus.parts["train"])
        return WordTokenizer.of_lines(texts, min_count=min_count, vocab_size=vocab_size)
    return ByteTokenizer()


def make_example_tokenizer(cfg: ExamplesConfig, parts: Parts, source: str) -> Tokenizer:
    """The tokenizer for records, of which each text stands alone; `source` is what errors call them.

    The characters are those of every part, as there is no token for an unknown one; all else comes from the
    training part, sources and targets together.
    """
    train = parts["train"]
    marked = needs_marks(train, cfg.wrap)
    if cfg.vocab_path:
        tokenizer = read_vocabulary(cfg.tokenizer, Path(cfg.vocab_path))
    elif cfg.tokenizer == "char":
        every = (text for records in parts.values() for record in records for text in texts_of(record))
        tokenizer = CharTokenizer.of(every, has_eot=True)
    elif cfg.tokenizer in ("sentencepiece", "wordpiece"):
        text = "\n".join(text for record in train for text in texts_of(record))
        make = _trained if cfg.tokenizer == "sentencepiece" else _trained_pieces
        tokenizer = make(source, [Document(source, text, key="")], cfg.vocab_size)
    elif cfg.tokenizer == "word":
        words = (word for record in train for word in words_of(record))
        marks = (*EXAMPLES, BEGIN, END) if marked else EXAMPLES
        tokenizer = WordTokenizer.of(words, marks, min_count=cfg.min_count, vocab_size=cfg.vocab_size)
    else:
        tokenizer = ByteTokenizer()
    if marked and (tokenizer.bos is None or tokenizer.eot is None):
        raise DataError(
            f"{cfg.vocab_path}: this vocabulary has no marks for the beginning and the end of a text, which "
            f"wrap={cfg.wrap} or a second text needs; give one that has them, such as <s> and </s>"
        )
    return tokenizer


def _trained(source: str, documents: Sequence[Document], vocab_size: int) -> SentencePieceTokenizer:
    """A SentencePiece model of these texts."""
    import sentencepiece

    what = f"{sentencepiece.__version__} {sorted(SETTINGS.items())}"
    made = _cached("sentencepiece", what, source, documents, vocab_size, train, SentencePieceTokenizer)
    return SentencePieceTokenizer(made)


def _trained_pieces(source: str, documents: Sequence[Document], vocab_size: int) -> WordPieceTokenizer:
    """A WordPiece vocabulary of these texts."""
    import tokenizers

    def write(texts: list[str], vocab_size: int) -> bytes:
        return "\n".join(word_piece_training.train(texts, vocab_size)).encode()

    def read(vocabulary: bytes) -> WordPieceTokenizer:
        return WordPieceTokenizer(tuple(vocabulary.decode().split("\n")))

    what = f"{tokenizers.__version__} {word_piece_training.COVERAGE}"
    return read(_cached("wordpiece", what, source, documents, vocab_size, write, read))


def _cached(
    name: str,
    what: str,
    source: str,
    documents: Sequence[Document],
    vocab_size: int,
    train: Callable[[list[str], int], bytes],
    read: Callable[[bytes], Tokenizer],
) -> bytes:
    """What `train` makes of these texts with the settings `what`, from the cache where it did so before."""

    def build():
        log.info("training %s %s pieces on %s", f"{vocab_size:,}", name, source)
        model = train([document.text for document in documents], vocab_size)
        return {"model": np.frombuffer(model, np.uint8)}

    def is_sound(arrays):
        try:
            return read(arrays["model"].tobytes()).vocab_size == vocab_size
        except (DataError, UnicodeDecodeError):
            return False

    everything = f"{what} {vocab_size} {part_digest(documents)}"
    key = f"{name}-{hashlib.sha256(everything.encode()).hexdigest()[:32]}"
    return cached(key, build=build, is_sound=is_sound, names=("model",))["model"].tobytes()
