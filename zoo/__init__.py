"""zoo: RNN, BERT and GPT as pure functions, for JAX.

    model  = zoo.create("gpt2")
    params = model.init(jax.random.key(0))
    logits = model.apply(params, tokens)

    model, params, tokenizer = zoo.from_pretrained("runs/gpt_stdlib")    # or a Hugging Face folder
    zoo.save_pretrained("folder", model, params, tokenizer)
    model, params = zoo.quantised(model, params, bits=8)                 # for inference in less room

The definitions are in zoo/models, one file per family; zoo/recipes.py holds the training runs.
"""

from typing import TYPE_CHECKING

from zoo.models import create, list_models
from zoo.models.quantised import quantised

if TYPE_CHECKING:
    from zoo.pretrained import from_pretrained, labels_of, save_pretrained
    from zoo.recipes import CONFIGS

__all__ = ["CONFIGS", "create", "from_pretrained", "labels_of", "list_models", "quantised", "save_pretrained"]
__version__ = "0.1.0"


def __getattr__(name):
    """Recipes and weights are imported on first use: whoever wants definitions does not wait for them."""
    if name == "CONFIGS":
        from zoo.recipes import CONFIGS

        return CONFIGS
    if name in ("from_pretrained", "labels_of", "save_pretrained"):
        from zoo import pretrained

        return getattr(pretrained, name)
    raise AttributeError(f"module 'zoo' has no attribute {name!r}")
