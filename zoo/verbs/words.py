"""words: what vectors know of words, from a run or from a file."""

from collections.abc import Callable
from pathlib import Path

import zoo
from zoo.errors import ConfigError
from zoo.inference.words import evaluate_analogies, evaluate_similarity, neighbours
from zoo.pretrained.tables import vectors_of
from zoo.pretrained.vectors import Vectors, read_vectors
from zoo.pretrained.write_vectors import check_folder, write_glove, write_word2vec_binary, write_word2vec_text

WRITERS = {".txt": write_word2vec_text, ".bin": write_word2vec_binary, ".glove": write_glove}
SHOWN = 10  # neighbours of a word


def vectors_in(path: Path) -> Vectors:
    """Of a file, or of the table that a run's model looks words up in."""
    if not path.is_dir():
        return read_vectors(path)
    model, params, tokenizer = zoo.from_pretrained(path)
    if "table" in model.traits:  # GloVe publishes the sum of both tables, word2vec the words' alone
        return vectors_of(params, tokenizer, ("words", "contexts") if model.config.bias else ("words",))
    params = params.get("encoder", params)
    if "tokens" not in params:
        raise ConfigError(f"{path}: a {type(model.config).__name__} has no table of word vectors")
    return vectors_of(params, tokenizer, ("tokens",))


def words(options) -> dict:
    """Neighbours, tests and export, whichever are asked for."""
    write = writer(options.export)
    vectors = vectors_in(Path(options.model))
    found = {"model": options.model, "words": len(vectors.words), "width": vectors.width}
    if options.words:
        found["neighbours"] = {}
        for word in options.words:
            near = neighbours(vectors, word, SHOWN)
            print(f"{word:20} " + ", ".join(f"{other} {cosine:.3f}" for other, cosine in near))
            found["neighbours"][word] = [other for other, _ in near]
    for name, files, test in (
        ("similarity", options.similarity, evaluate_similarity),
        ("analogies", options.analogies, evaluate_analogies),
    ):
        for file in files:
            result = {key: value for key, value in test(vectors, Path(file)).items() if key != "sections"}
            print(f"{name:12} {file:40} " + " ".join(f"{key} {value:.6g}" for key, value in result.items()))
            found.setdefault(name, {})[file] = result
    if write:
        write(Path(options.export), vectors)
        found["export"] = options.export
    return found


def writer(export: str) -> Callable | None:
    """What writes a file of this name, or None for no name; refused before anything is computed."""
    if not export:
        return None
    suffix = Path(export.removesuffix(".gz")).suffix
    if suffix not in WRITERS:
        raise ConfigError(f"--export={export}: the name ends in none of {', '.join(WRITERS)}")
    check_folder(Path(export))
    return WRITERS[suffix]
