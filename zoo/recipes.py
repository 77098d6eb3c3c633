"""CONFIGS: complete training runs, in plain Python. `python train.py NAME` runs one.

A recipe is model + task + data + optimizer + schedule + mesh, and the run's own numbers. Any field can be
set on the command line by its dotted name; `--optimizer muon` exchanges a whole part.
"""

import dataclasses
import functools
import math
import re
from dataclasses import dataclass, field

from zoo.data import DataConfig
from zoo.errors import ConfigError
from zoo.models.gpt import SIZES, GPTConfig
from zoo.optim import OPTIMIZERS, AdamW, Muon, Optimizer
from zoo.schedules import SCHEDULES, Cosine, Schedule
from zoo.sharding import MeshConfig
from zoo.tasks import TASKS, CausalLM

# What `--model NAME` and the like put in place of a whole part.
CHOICES = {
    "model": {name: functools.partial(dataclasses.replace, size) for name, size in SIZES.items()},
    "task": TASKS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

# Every class that a saved recipe may name: a closed table.
PARTS = (GPTConfig, CausalLM, DataConfig, MeshConfig, *OPTIMIZERS.values(), *SCHEDULES.values())


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: GPTConfig
    task: CausalLM = field(default_factory=CausalLM)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cosine)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    steps: int = 1000
    """Updates in all."""
    accumulate: int = 1
    """Micro-batches that a batch is computed in, one after the other, to save memory."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""
    average_decay: float = 0.0
    """Decay of a moving average of the parameters, used for evaluation; 0 keeps none."""
    seed: int = 0
    """Of initial values, dropout and the order of the data."""
    name: str = ""
    """The run's folder under `runs`; the recipe's name where none is given."""
    runs: str = "runs"
    """Folder that holds the folders of all runs."""
    init: str = ""
    """A run's folder whose parameters to start from; empty: random ones."""
    save_every: int = 500
    """Steps between checkpoints; one more is written at the end."""
    keep: int = 2
    """Checkpoints kept."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 250
    """Steps between evaluations; the whole validation set is read at the end in any case."""
    eval_batches: int = 20
    """Batches of an evaluation on the way; 0: the whole validation set."""
    sample_prompt: str = "\n"
    """What the text written at the end continues."""
    sample_tokens: int = 200
    """Its length in tokens; 0 writes none."""
    tensorboard: bool = False
    """Write TensorBoard files too (pip install -e ".[tensorboard]")."""
    plot: bool = False
    """Draw the loss curve to loss.png at the end (pip install -e ".[plot]")."""

    def __post_init__(self):
        at_least = {"steps": 1, "accumulate": 1, "keep": 1, "save_every": 1, "log_every": 1, "eval_every": 1}
        for name, least in (at_least | {"eval_batches": 0, "sample_tokens": 0, "seed": 0}).items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")
        if self.data.length > self.model.max_length:
            raise ConfigError(
                f"data.length={self.data.length} is longer than the model, "
                f"model.max_length={self.model.max_length}; shorten the one or lengthen the other"
            )
        if self.data.batch_size % self.accumulate:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} is not a multiple of accumulate={self.accumulate}"
            )
        if self.seed >= 2**32:
            raise ConfigError(f"seed={self.seed} must be less than {2**32}")
        if not re.fullmatch(r"[\w.+-]+", self.name or "unnamed") or self.name in (".", ".."):
            raise ConfigError(f"name={self.name!r} must be one folder's name: letters, digits and . _ + -")
        if self.model.dtype == "float64":
            raise ConfigError(
                "model.dtype=float64 is for proofs under jax.enable_x64; a run takes float32 or bfloat16"
            )
        if not 0 <= self.average_decay < 1:
            raise ConfigError(f"average_decay={self.average_decay} must be at least 0 and less than 1")
        if not 0 <= self.clip_norm < math.inf:
            raise ConfigError(f"clip_norm={self.clip_norm} must be a number of at least 0; 0 does not clip")


# What may change between two starts of one run: how it is computed, watched and stored, not what.
# The data's digest is compared instead of the path to it, and `steps` by what the schedule does with it.
EXEMPT = {
    *(
        "mesh.data",
        "mesh.fsdp",
        "mesh.tensor",
        "model.remat",
        "model.layer_unroll",
        "data.path",
        "data.vocab_path",
    ),
    *("name", "runs", "save_every", "keep", "log_every", "eval_every", "eval_batches", "tensorboard", "plot"),
    *("sample_prompt", "sample_tokens", "steps"),
}

# The default: a small GPT on the text that every Python carries, sized for five minutes on two CPU cores.
# Under this budget Muon beat AdamW by 0.3 bits per byte, width 128 beat 256, and 8 rows beat 4; the rows
# are in benchmarks/README.md.
_STDLIB = Recipe(
    model=GPTConfig(
        vocab_size=0,
        max_length=256,
        num_layers=4,
        num_heads=4,
        d_model=128,
        dropout_rate=0.0,
        layer_unroll=0,
    ),
    data=DataConfig(
        tokenizer="sentencepiece", vocab_size=4096, length=256, batch_size=8, valid_fraction=0.05
    ),
    optimizer=Muon(learning_rate=6e-3, adam_learning_rate=6e-3),
    schedule=Cosine(warmup_steps=30, final_fraction=0.05),
    steps=600,
    save_every=200,
    sample_prompt="def ",
)

# nanoGPT's character models of Shakespeare (config/train_shakespeare_char.py, and the README's settings
# for a CPU). The text is nanoGPT's input.txt, or --data.path; published validation losses 1.88 and 1.4697.
_SHAKESPEARE = Recipe(
    model=GPTConfig(
        vocab_size=0,
        max_length=64,
        num_layers=4,
        num_heads=4,
        d_model=128,
        dropout_rate=0.0,
        bias=False,
        activation="gelu",
        layer_unroll=0,
    ),
    data=DataConfig(path="input.txt", tokenizer="char", length=64, batch_size=12),
    optimizer=AdamW(learning_rate=1e-3, beta2=0.99, weight_decay=0.1),
    schedule=Cosine(warmup_steps=100, final_fraction=0.1),
    steps=2000,
    eval_every=250,
    sample_tokens=500,
)

# GPT-2's sizes with nanoGPT's training run (config/train_gpt2.py): 480 x 1,024 = 491,520 tokens a step,
# 600,000 steps. Reads folders openwebtext (or --data.path) and gpt2 (or --data.vocab-path), which holds the
# vocabulary: encoder.json and vocab.bpe.
_GPT2 = Recipe(
    model=dataclasses.replace(SIZES["gpt2"], dropout_rate=0.0, dtype="bfloat16"),
    data=DataConfig(path="openwebtext", tokenizer="bpe", vocab_path="gpt2", length=1024, batch_size=480),
    optimizer=AdamW(learning_rate=6e-4, beta2=0.95, weight_decay=0.1),
    schedule=Cosine(warmup_steps=2000, final_fraction=0.1),
    steps=600_000,
    accumulate=5,
    save_every=2000,
    eval_every=1000,
    eval_batches=200,
)


def _gpt2(size: str, learning_rate: float, accumulate: int) -> Recipe:
    """The run with another size; learning rates of GPT-3's models of that size (its table 2.1)."""
    shape = {key: getattr(SIZES[size], key) for key in ("num_layers", "num_heads", "d_model")}
    return dataclasses.replace(
        _GPT2,
        model=dataclasses.replace(_GPT2.model, **shape, remat="dots"),
        optimizer=dataclasses.replace(_GPT2.optimizer, learning_rate=learning_rate),
        accumulate=accumulate,
    )


_RECIPES = {
    "gpt_stdlib": _STDLIB,
    "gpt_shakespeare_char": _SHAKESPEARE,
    "gpt_shakespeare_char_gpu": dataclasses.replace(
        _SHAKESPEARE,
        model=dataclasses.replace(
            _SHAKESPEARE.model, max_length=256, num_layers=6, num_heads=6, d_model=384, dropout_rate=0.2
        ),
        data=dataclasses.replace(_SHAKESPEARE.data, length=256, batch_size=64),
        steps=5000,
    ),
    "gpt2": _GPT2,
    "gpt2_medium": _gpt2("gpt2_medium", 3e-4, 10),
    "gpt2_large": _gpt2("gpt2_large", 2.5e-4, 20),
    "gpt2_xl": _gpt2("gpt2_xl", 2e-4, 40),
}

CONFIGS: dict[str, Recipe] = {
    name: dataclasses.replace(recipe, name=name) for name, recipe in _RECIPES.items()
}
