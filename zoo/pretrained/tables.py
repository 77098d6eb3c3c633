"""Vectors out of a model's tables, and into them: any model can start from word vectors.

vectors       = vectors_of(params, tokenizer)                              of a trained WordVectors
params, found = initialise(params, "tokens/table", vectors, tokenizer)     of any model with such a table
"""

from collections.abc import Collection

import jax.numpy as jnp
import numpy as np

from zoo.data.tokenizers.word import MARKS
from zoo.errors import DataError
from zoo.pretrained.vectors import Vectors


def vectors_of(params, tokenizer, tables: Collection[str] = ("words",)) -> Vectors:
    """The vectors of a trained WordVectors, without padding and the marks, which no text trains.

    `tables` are added up: ("words",) as word2vec publishes, ("words", "contexts") as GloVe does
    (aclanthology.org/D14-1162, section 4.2).
    """
    table_VD = np.sum([np.asarray(params[name]["table"], np.float32) for name in tables], axis=0)
    rows = [(i, spelled(tokenizer, i)) for i in range(tokenizer.vocab_size)]
    rows = [(i, word) for i, word in rows if word and word not in MARKS]
    return Vectors(tuple(word for _, word in rows), table_VD[[i for i, _ in rows]])


def initialise(params, path_to_table: str, vectors: Vectors, tokenizer) -> tuple[dict, int]:
    """(params with the vectors of known words in a table, how many of its rows those are).

    `path_to_table` names an embedding in the tree, "tokens/table". A token is known where what it spells,
    without blanks around it, is a word of `vectors`; several may spell the same. All other rows stay as
    they are. Raises DataError where the table is of another width, or there is none.
    """
    *groups, name = path_to_table.split("/")
    parent = params
    for group in groups:
        parent = parent.get(group, {})
    if name not in parent:
        raise DataError(f"{path_to_table}: the model has no such table; its parts are {', '.join(params)}")
    table_VD = parent[name]
    if table_VD.shape[1] != vectors.width:
        raise DataError(
            f"the vectors are {vectors.width} wide and {path_to_table} is {table_VD.shape[1]}; "
            f"set the model's width to {vectors.width} or give other vectors"
        )
    found = [(i, vectors.places.get(spelled(tokenizer, i))) for i in range(tokenizer.vocab_size)]
    found = [(i, place) for i, place in found if place is not None]
    if found:
        ids, places = map(np.array, zip(*found, strict=True))
        new_VD = vectors.table_VD[places].astype(table_VD.dtype)
        table_VD = jnp.asarray(table_VD).at[ids].set(new_VD)
    return _with(params, [*groups, name], table_VD), len(found)


def spelled(tokenizer, token: int) -> str:
    """What a token stands for in a text, without blanks around it; nothing for a line's end."""
    return tokenizer.decode([token]).strip()


def _with(tree: dict, path: list[str], value) -> dict:
    """The tree with one leaf exchanged; the rest is shared."""
    name, *rest = path
    return {**tree, name: _with(tree[name], rest, value) if rest else value}
