"""A recipe: model + task + data + optimizer + schedule + mesh, and the run's own numbers.

Any field can be set on the command line by its dotted name; `--optimizer muon` exchanges a whole part.
"""

import dataclasses
import functools
import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.data import SOURCES, DataConfig
from zoo.data.characters import MAX_CHARACTERS
from zoo.distill import Distill
from zoo.errors import ConfigError
from zoo.guard import Guard
from zoo.joining import ClusterConfig
from zoo.mesh import MeshConfig
from zoo.models import MODELS, SIZES, module_of
from zoo.models.lora import LoRA
from zoo.optim import OPTIMIZERS, AdamW, Optimizer
from zoo.optim.finetune import FineTune
from zoo.schedules import SCHEDULES, Cosine, Schedule
from zoo.tasks import TASKS, CausalLM

# What `--model NAME` and the like put in place of a whole part.
CHOICES = {
    "model": {name: functools.partial(dataclasses.replace, size) for name, size in SIZES.items()},
    "task": TASKS,
    "data": SOURCES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}

# Every class that a saved recipe may name: a closed table.
PARTS = (
    *MODELS,
    *TASKS.values(),
    *SOURCES.values(),
    MeshConfig,
    ClusterConfig,
    Guard,
    FineTune,
    LoRA,
    Distill,
    *OPTIMIZERS.values(),
    *SCHEDULES.values(),
)


NOT_NEGATIVE = ("eval_batches", "sample_tokens", "seed", "patience", "stall_seconds")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: Any
    task: Any = field(default_factory=CausalLM)
    data: Any = field(default_factory=DataConfig)
    optimizer: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cosine)
    finetune: FineTune = field(default_factory=FineTune)
    lora: LoRA = field(default_factory=LoRA)
    distill: Distill = field(default_factory=Distill)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    guard: Guard = field(default_factory=Guard)
    steps: int = 1000
    """Updates in all."""
    accumulate: int = 1
    """Micro-batches that a batch is computed in, one after the other, to save memory."""
    clip_norm: float = 1.0
    """Largest global norm of the gradient; 0 does not clip."""
    average_decay: float = 0.0
    """Decay of a moving average of the parameters, used for evaluation; 0 keeps none."""
    param_dtype: Literal["float32", "bfloat16", "bfloat16_stochastic"] = "float32"
    """How parameters are stored: float32; bfloat16 with a float32 copy in the optimizer's state; or bfloat16
    without one, rounded at random after each update (zoo/optim/precision.py)."""
    offload: tuple[Literal["optimizer"], ...] = ()
    """What lies in the host's memory between steps, to spare the devices': the optimizer's state."""
    seed: int = 0
    """Of initial values, dropout and the order of the data."""
    deterministic: bool = False
    """The same bits from every start on a GPU too, at the cost of speed (zoo/xla.py); CPUs and TPUs give them
    anyway."""
    name: str = ""
    """The run's folder under `runs`; the recipe's name where none is given."""
    runs: str = "runs"
    """Folder that holds the folders of all runs."""
    init: str = ""
    """A run's folder whose parameters to start from, or those of the head's encoder; empty: random ones."""
    vectors: str = ""
    """A file of word vectors (word2vec's or GloVe's) that the table of words starts from; empty: random."""
    save_every: int = 500
    """Steps between checkpoints; one more is written at the end. 0: a quarter of the steps."""
    keep: int = 2
    """Checkpoints kept; the two newest stay in any case."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    eval_every: int = 250
    """Steps between evaluations; the whole validation set is read at the end in any case. 0: a quarter of the
    steps."""
    eval_batches: int = 20
    """Batches of an evaluation on the way; 0: the whole validation set."""
    best: str = ""
    """A metric of the evaluations (accuracy, eval_loss): the parameters with its best value are what the run
    ends with; empty: the last ones."""
    patience: int = 0
    """Evaluations in a row without a better value of it, after which the run ends; 0: it takes all steps."""
    stall_seconds: int = 600
    """Seconds without a step, a batch of an evaluation or a save, after which a run counts as stuck and ends
    with code 71: longer where 30 steps take longer, six times as long for the first step (it is compiled), an
    evaluation or a save; 0: never."""
    sample_prompt: str = "\n"
    """What the text written at the end continues."""
    sample_tokens: int = 200
    """Its length in tokens; 0 writes none."""
    tensorboard: bool = False
    """Write TensorBoard files too (pip install -e ".[tensorboard]")."""
    plot: bool = False
    """Draw the loss curve to loss.png at the end (pip install -e ".[plot]")."""

    def __post_init__(self):
        at_least = {"steps": 1, "accumulate": 1, "keep": 1, "save_every": 0, "log_every": 1, "eval_every": 0}
        for name, least in (at_least | dict.fromkeys(NOT_NEGATIVE, 0)).items():
            if getattr(self, name) < least:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least {least}")
        where = "model" if hasattr(self.model, "max_length") else "model.encoder"
        longest = getattr(getattr(self.model, "encoder", self.model), "max_length", math.inf)
        if self.data.length > longest:
            raise ConfigError(
                f"data.length={self.data.length} is longer than the model, {where}.max_length={longest}; "
                "shorten the one or lengthen the other"
            )
        rows = self.data.batch_size
        if rows % self.accumulate:
            parts = next((more for more in range(self.accumulate, rows) if rows % more == 0), rows)
            raise ConfigError(
                f"data.batch_size={rows} is not a multiple of accumulate={self.accumulate}; give "
                f"--accumulate {parts}, or a --data.batch-size that is"
            )
        if self.patience and not self.best:
            raise ConfigError(
                f"patience={self.patience} waits for a metric; name it with best, or set it to 0"
            )
        if self.distill.teacher and not hasattr(self.task, "scored"):
            raise ConfigError(
                f"distill: task={type(self.task).__name__} has no logits that a teacher could give; leave "
                "distill.teacher empty"
            )
        if self.distill.teacher and getattr(self.data, "layout", "") == "streams":
            raise ConfigError("distill: a teacher reads whole rows; choose data.layout=stream")
        if self.lora.rank and not self.init:
            raise ConfigError(
                f"lora.rank={self.lora.rank} adapts a model that stays as it is, and without init that is a "
                "random one; name its folder with init"
            )
        self.guard.check(save_every=self.save_every, keep=self.keep)
        self._check_parts()
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

    def _check_parts(self):
        """Model, task and data must be of one kind; what a task cannot train would fail late, or never."""
        model, task = type(self.model).__name__, type(self.task).__name__
        traits = module_of(self.model).traits
        if self.task.trait not in traits or ("pair" in traits and self.task.trait != "pair"):
            raise ConfigError(
                f"task={task} trains a model that is {self.task.trait!r}, and this {model} is "
                f"{', '.join(sorted(traits))}; choose another task or model"
            )
        if self.data.kind != self.task.kind:
            raise ConfigError(
                f"task={task} reads examples of the kind {self.task.kind!r}, and data gives "
                f"{self.data.kind!r}; choose another task or data"
            )
        if getattr(self.data, "layout", "") == "streams" and "recurrent" not in traits:
            raise ConfigError(
                f"data.layout=streams carries a state from step to step, and {model} has none; choose "
                "data.layout=stream"
            )
        path, inner = "model", self.model
        while hasattr(inner, "encoder"):
            path, inner = f"{path}.encoder", inner.encoder
        spells, given = getattr(inner, "words", "") == "characters", getattr(self.data, "characters", False)
        if spells and (not given or inner.max_characters != MAX_CHARACTERS):
            raise ConfigError(
                f"{path}.words=characters needs data.characters=true and {path}.max_characters="
                f"{MAX_CHARACTERS}, as many as the data gives"
            )
        if given and not spells:
            raise ConfigError(
                f"data.characters=true spells words, and no part of {model} reads their spelling; set it to "
                "false"
            )
        words = getattr(self.model, "encoder", self.model)
        if getattr(words, "word_dropout_rate", 0) and self.data.tokenizer != "word":
            raise ConfigError(
                f"word_dropout_rate={words.word_dropout_rate} reads words as <unk>, which "
                f"data.tokenizer={self.data.tokenizer} has not; set it to 0"
            )


# What may change between two starts of one run: how it is computed, watched and stored, not what.
# The data's digest is compared instead of the path to it, and `steps` by what the schedule does with it.
EXEMPT = {
    *("model.remat", "model.layer_unroll", "data.path", "data.vocab_path", "data.template"),
    *(f"mesh.{field.name}" for field in dataclasses.fields(MeshConfig)),
    *(f"cluster.{field.name}" for field in dataclasses.fields(ClusterConfig)),
    *("name", "runs", "save_every", "keep", "log_every", "eval_every", "eval_batches", "tensorboard", "plot"),
    *("offload", "deterministic", "guard.limit", "guard.rewinds", "guard.audit_every"),
    *("sample_prompt", "sample_tokens", "steps", "patience", "stall_seconds"),
}
# What decides which parameters are the best, and so is no mere watching where a run keeps those.
JUDGING = {"eval_every", "eval_batches"}
