"""A run without data and without arrays: the batch and the state of a recipe as shapes, placed on a mesh.

A recipe reads the size of its vocabulary from its data. Here it comes from what the recipe says of the
data: the pieces that a tokenizer is to be trained to, or `--model.vocab-size`.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from zoo import sharding
from zoo.data import DataConfig, DialoguesConfig, MaskedConfig
from zoo.data.characters import MAX_CHARACTERS
from zoo.data.tokenizers.byte import ByteTokenizer
from zoo.errors import ConfigError

# Texts that a row of pairs holds at most: the data decides, and it is a few numbers a row either way.
FIRSTS = 8
TRAINED = ("sentencepiece", "wordpiece")


@dataclass(frozen=True)
class AbstractTokenizer:
    """As much of a tokenizer as sizes need."""

    name: str
    eot: int = 0


@dataclass(frozen=True)
class AbstractData:
    """Stands for a data set where only its shapes are asked for."""

    cfg: Any
    sizes: dict[str, int]
    tokenizer: AbstractTokenizer

    @property
    def carried_rows(self) -> int:
        return self.cfg.batch_size if getattr(self.cfg, "layout", "") == "streams" else 0

    def examples(self) -> dict[str, np.ndarray]:
        """Zeros of the shapes that one step reads."""
        cfg = self.cfg
        B, T = cfg.batch_size, cfg.length

        def whole(*shape):
            return np.broadcast_to(np.int32(0), shape)

        def weights(*shape):
            return np.broadcast_to(np.float32(1), shape)

        if isinstance(cfg, MaskedConfig):
            P = math.ceil(cfg.mask_rate * T)
            found = {"tokens": whole(B, T), "segments": whole(B, T), "positions": whole(B, T)}
            found |= {"picked": whole(B, P), "targets": whole(B, P), "weights": weights(B, P)}
            if cfg.pairs != "none":
                S = FIRSTS if cfg.layout == "packed" else 1
                found |= {"token_types": whole(B, T), "firsts": whole(B, S), "labels": whole(B, S)}
                found["label_weights"] = weights(B, S)
            return found
        found = {"tokens": whole(B, T + 1), "weights": weights(B, T)}
        if isinstance(cfg, DialoguesConfig) or cfg.layout == "packed":
            found |= {"segments": whole(B, T), "positions": whole(B, T)}
        elif cfg.layout == "streams":
            found["begins"] = np.broadcast_to(np.False_, (B,))
        if getattr(cfg, "characters", False):
            found["characters"] = whole(B, T + 1, MAX_CHARACTERS)
        return found


def abstract_data(recipe) -> AbstractData:
    """The stand-in for a recipe's data; ConfigError where its shapes cannot be known without it."""
    cfg = recipe.data
    if not isinstance(cfg, (DataConfig, MaskedConfig, DialoguesConfig)):
        raise ConfigError(
            f"--plan: the shapes of {type(cfg).__name__}'s batches follow from the data; text, masked and "
            "dialogues are planned"
        )
    if recipe.distill.teacher:
        raise ConfigError("--plan: a step with a teacher is not planned; leave distill.teacher out")
    config, path = recipe.model, "model"
    while (
        not hasattr(type(config), "__dataclass_fields__") or "vocab_size" not in config.__dataclass_fields__
    ):
        config, path = config.encoder, f"{path}.encoder"
    sizes = {} if config.vocab_size else {"vocab_size": vocab_size(cfg, path)}
    return AbstractData(cfg, sizes, AbstractTokenizer(getattr(cfg, "tokenizer", "")))


def vocab_size(cfg, path: str) -> int:
    """The words of a vocabulary that is not there yet."""
    name = getattr(cfg, "tokenizer", "")
    if name == "byte" and not cfg.vocab_path:
        return ByteTokenizer().vocab_size
    if name in (*TRAINED, "word") and cfg.vocab_size and not cfg.vocab_path:
        return cfg.vocab_size
    given = f"--{path.replace('_', '-')}.vocab-size {65 if name == 'char' else 10_000}"
    raise ConfigError(
        f"--plan: the vocabulary's size follows from the text (tokenizer {name}); say it, as in {given}"
    )


def placed_state(parts, mesh):
    """The train state as shapes on the mesh."""
    specs = parts.specs()
    return jax.tree.map(
        lambda spec, place: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=place),
        specs,
        parts.places(mesh),
    )


def placed_batch(task, data: AbstractData, mesh):
    """A step's batch likewise."""
    place = sharding.rows_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), task.batch(data.examples())
    )


def bytes_per_device(tree, numbers=None) -> int:
    """Of arrays as shapes, what each device of a TPU holds, in tiles of 8 x 128 numbers as it lays them out;
    `numbers` counts those of a shape where another device lays them out otherwise. What lies in the host's
    memory does not count."""
    numbers = numbers or tiled_size
    return sum(
        numbers(x.sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
        if not is_offloaded(x)
    )


def offloaded_bytes(tree) -> int:
    """What each device keeps in its host's memory, numbers laid side by side."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
        if is_offloaded(x)
    )


def is_offloaded(x) -> bool:
    return x.sharding.memory_kind == sharding.HOST_MEMORY


def tiled_size(shape: tuple[int, ...]) -> int:
    """Numbers that an array takes up: its two innermost dimensions are filled up to 8 x 128, and which ones
    these are the compiler chooses so that the least is wasted. 96 x 64 numbers take up 64 x 128."""
    if not shape:
        return 1
    if len(shape) == 1:
        return -(-shape[0] // 128) * 128
    size = math.prod(shape)
    return min(
        size // (a * b) * (-(-a // 128) * 128) * (-(-b // 8) * 8)
        for (i, a), (j, b) in itertools.permutations(enumerate(shape), 2)
    )
