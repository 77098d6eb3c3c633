"""The state that a run begins with: random parameters, or those of --init, and the words of --vectors."""

import sys

from zoo.optim.finetune import overlaid
from zoo.pretrained.start import load_start
from zoo.tree import named_leaves


def first_state(recipe, parts, mesh, dataset):
    """State 0 of a zoo.step.TrainStep, on `mesh`."""
    state = parts.init_on(mesh)
    if recipe.init:
        names = {kind: getattr(dataset, kind, ()) for kind in ("labels", "tags")}
        params = load_start(recipe.init, parts.model.base, state.params, mesh, dataset.tokenizer, names)
        state = state.started_from(overlaid(state.params, params))
    if recipe.vectors:
        params = with_vectors(recipe.vectors, parts.model, state.params, dataset.tokenizer)
        state = state.started_from(params)
    return state


def with_vectors(path: str, model, params, tokenizer):
    """The parameters with the vectors of a file in the table that words are looked up in."""
    from zoo.pretrained.tables import initialise
    from zoo.pretrained.vectors import read_vectors

    words = {tokenizer.decode([token]).strip() for token in range(tokenizer.vocab_size)}
    looked_up = "words/table" if "table" in model.traits else "tokens/table"
    table = next((name for name in named_leaves(params) if name.endswith(looked_up)), looked_up)
    params, found = initialise(params, table, read_vectors(path, words), tokenizer)
    print(f"vectors  {path}: {found:,} of {tokenizer.vocab_size:,} words", file=sys.stderr)
    return params
