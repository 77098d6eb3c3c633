"""Which tokenizer a corpus gets: ready-made, from vocabulary files, or trained on its training part."""

import hashlib
import logging
from pathlib import Path

import numpy as np

from zoo.data.cache import cached
from zoo.data.corpus import Corpus, part_digest
from zoo.data.tokenizers import TOKENIZERS, Tokenizer
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.data.tokenizers.char import CharTokenizer
from zoo.data.tokenizers.sentence_piece import SETTINGS, SentencePieceTokenizer, train
from zoo.errors import DataError

log = logging.getLogger("zoo.data")


def make_tokenizer(name: str, corpus: Corpus, *, vocab_path: str, vocab_size: int) -> Tokenizer:
    """The tokenizer `name` for a corpus, from `vocab_path` where that is given."""
    if vocab_path:
        return TOKENIZERS[name].read(Path(vocab_path))
    if name == "char":
        texts = (document.text for part in ("train", "valid") for document in corpus.parts[part])
        return CharTokenizer.of(texts, has_eot=max(corpus.num_documents.values()) > 1)
    if name == "sentencepiece":
        return _trained(corpus, vocab_size)
    return ByteTokenizer()


def _trained(corpus: Corpus, vocab_size: int) -> SentencePieceTokenizer:
    """A SentencePiece model of the training part, from the cache where it was trained before."""
    import sentencepiece

    texts = part_digest(corpus.parts["train"])
    what = f"{sentencepiece.__version__} {sorted(SETTINGS.items())} {vocab_size} {texts}"

    def build():
        log.info("training %s SentencePiece pieces on %s", f"{vocab_size:,}", corpus.name)
        model = train([document.text for document in corpus.parts["train"]], vocab_size)
        return {"model": np.frombuffer(model, np.uint8)}

    def is_sound(arrays):
        try:
            return SentencePieceTokenizer(arrays["model"].tobytes()).vocab_size == vocab_size
        except DataError:
            return False

    key = f"sentencepiece-{hashlib.sha256(what.encode()).hexdigest()[:32]}"
    arrays = cached(key, build=build, is_sound=is_sound, names=("model",))
    return SentencePieceTokenizer(arrays["model"].tobytes())
