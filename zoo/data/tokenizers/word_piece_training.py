"""WordPiece's pieces, trained on a text by merging pairs inside words (Sennrich et al. 2015, 1508.07909).

The tokenizers library has a trainer for WordPiece, but it numbers the pieces anew in every process, and equal
counts are decided by these numbers. Here its byte-pair trainer gets words in which every character stands for
two, one that begins a word and one that goes on: the same merges, and the same pieces each time.

    words        the tea teat                           counted
    symbols      T h e   T e a   T e a t                T begins a word, h, e, a and t go on
    merges       e a     T ea                           the most frequent pair, the lowest of equals
    pieces       t ##h ##e ##a ##t ##ea tea
"""

from collections import Counter
from collections.abc import Sequence

from zoo.data.tokenizers.sentence_piece import sample
from zoo.data.tokenizers.text import utf8
from zoo.errors import DataError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
COVERAGE = 0.9995  # of the characters; a word with one of the rest is [UNK]
LONGEST = 100  # characters of a word; WordPiece reads a longer one as [UNK]
FIRST = 0x10000  # code point of the first symbol: none is white space or punctuation
REPEATS = 10_000  # words in one text for the trainer


def train(texts: Sequence[str], vocab_size: int) -> tuple[str, ...]:
    """The `vocab_size` pieces for these texts, upper and lower case kept apart: equal texts, equal pieces."""
    words = count_words(texts)
    characters = frequent_characters(words)
    known = {word: count for word, count in words.items() if set(word) <= set(characters)}
    symbols = {character: FIRST + 2 * number for number, character in enumerate(characters)}
    forms = {symbols[c] + (place > 0) for word in known for place, c in enumerate(word)}
    if vocab_size < len(SPECIAL) + len(forms):
        raise DataError(
            f"vocab_size={vocab_size} is too small for the characters of this text; set it to "
            f"{len(SPECIAL) + len(forms)} or more"
        )
    merged = merge(known, symbols, vocab_size - len(SPECIAL))
    pieces = (*SPECIAL, *(spelled(piece, characters) for piece in merged))
    if len(pieces) < vocab_size:
        raise DataError(
            f"vocab_size={vocab_size} is more pieces than this text yields; set it to {len(pieces)} or less"
        )
    return pieces


def count_words(texts: Sequence[str]) -> Counter[str]:
    """How often BERT's splitter finds each word in the texts, or in an even sample of long ones."""
    from tokenizers import normalizers, pre_tokenizers

    normalizer, splitter = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for text in sample(texts):
        utf8(text)
        words.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    return Counter({word: count for word, count in words.items() if len(word) <= LONGEST})


def frequent_characters(words: Counter[str]) -> str:
    """The characters that make up COVERAGE of the words, by code point."""
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    total, seen, kept = sum(counts.values()), 0, []
    for character in sorted(counts, key=lambda c: (-counts[c], c)):
        if seen >= COVERAGE * total:
            break
        seen += counts[character]
        kept.append(character)
    return "".join(sorted(kept))


def merge(words: dict[str, int], symbols: dict[str, int], size: int) -> list[str]:
    """The symbols and their merges, `size` in all, in the order in which they were made."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    def repeated():
        for word, count in sorted(words.items()):
            written = "".join(chr(symbols[c] + (place > 0)) for place, c in enumerate(word))
            for start in range(0, count, REPEATS):
                yield " ".join([written] * min(REPEATS, count - start))

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False)
    tokenizer.train_from_iterator(repeated(), trainer)
    numbers = tokenizer.get_vocab()
    return sorted(numbers, key=numbers.__getitem__)


def spelled(symbols: str, characters: str) -> str:
    """A piece as the vocabulary writes it: "##" before one that goes on."""
    numbers = [ord(symbol) - FIRST for symbol in symbols]
    text = "".join(characters[number // 2] for number in numbers)
    return f"##{text}" if numbers[0] % 2 else text
