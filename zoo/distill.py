"""Distillation: a student learns from a teacher's answers beside the right ones.

    loss = hard * the task's own
         + soft * T^2 * KL(teacher / T, student / T)      Hinton et al. 2015, arXiv 1503.02531
         + hidden * mean (x_student W - x_teacher)^2      TinyBERT (Jiao et al. 2019, arXiv 1909.10351)
         + attention * mean (scores_student - scores_teacher)^2

T is the temperature. The first two need no likeness at all: an LSTM learns from BERT. The last two are for
two Transformers: the student's layer i = 0, 1, ... follows the teacher's (i + 1) * N_teacher / N_student - 1,
which must be whole. W is learned with the student where the widths differ, and there is none where they are
equal. Scores are those before the softmax, as in TinyBERT. DistilBERT (Sanh et al. 2019, arXiv 1910.01108)
takes a cosine instead of the squared difference of hidden states; that is not here.

The teacher reads without dropout, gets no gradient, and is no part of the train state.
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from zoo.errors import ConfigError
from zoo.lettered import ParamSpec
from zoo.models.depth import innermost
from zoo.models.pure import present


@dataclass(frozen=True)
class Distill:
    """No teacher, by default; with one, equal parts of both losses."""

    teacher: str = ""
    """A run's folder or a published model with the student's task, vocabulary and labels; empty: none."""
    temperature: float = 2.0
    """What logits of both are divided by before they are compared; 1: as they are."""
    hard: float = 0.5
    """Weight of the task's own loss."""
    soft: float = 0.5
    """Weight of the teacher's distribution over classes, tags or words."""
    hidden: float = 0.0
    """Weight of the teacher's layers' outputs; 0: they are not compared."""
    attention: float = 0.0
    """Weight of the teacher's attention scores; 0: they are not compared."""

    def __post_init__(self):
        for name in ("hard", "soft", "hidden", "attention"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)} must be a number of at least 0")
        if not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature={self.temperature} must be above 0; 1 takes logits as they are")


@dataclass(frozen=True)
class Lesson:
    """A student's model, its teacher's, and how the two are compared. No arrays."""

    student: Any
    teacher: Any
    cfg: Distill

    def __post_init__(self):
        experts = getattr(innermost(self.student)[0], "experts", None)
        for name in ("balance_loss", "z_loss"):
            if weight := getattr(experts, name, 0.0):
                raise ConfigError(
                    f"distill: {name}={weight} of the student's experts is no part of it; set it to 0"
                )
        if not self.compares_layers:
            return
        ours, theirs = self.student.layer_shapes(), self.teacher.layer_shapes()
        if not ours or not theirs:
            raise ConfigError(
                "distill.hidden and distill.attention compare the layers of two Transformers (GPT, BERT); "
                "set both to 0"
            )
        N, M = ours["x_BTD"][0], theirs["x_BTD"][0]
        if M % N:
            fitting = ", ".join(str(n) for n in range(1, M + 1) if M % n == 0)
            raise ConfigError(
                f"distill: the teacher's {M} layers are no multiple of the student's {N}; choose one of "
                f"{fitting} layers, or set distill.hidden and distill.attention to 0"
            )
        H, J = ours["q_BTHK"][-2], theirs["q_BTHK"][-2]
        if self.cfg.attention and H != J:
            raise ConfigError(
                f"distill.attention compares head by head, and the student has {H} heads, the teacher {J}; "
                "make them equal or set distill.attention=0"
            )

    @property
    def compares_layers(self) -> bool:
        return self.cfg.hidden > 0 or self.cfg.attention > 0

    def specs(self) -> dict:
        """The parameters that are learned beside the student's: W, where the widths differ."""
        if not self.cfg.hidden:
            return {}
        D, E = (model.layer_shapes()["x_BTD"][-1] for model in (self.student, self.teacher))
        return {} if D == E else {"distill": {"w": ParamSpec("DE", (D, E), (D, E), jnp.float32, 1)}}

    def init(self, key) -> dict:
        """Random values of these."""
        return jax.tree.map(
            lambda spec: spec.shape[0] ** -0.5 * jax.random.normal(key, spec.shape, spec.dtype), self.specs()
        )

    def read(self, model, params, inputs, **settings):
        """(x, layers) of either model; no layers where none are compared."""
        if self.compares_layers:
            return model.layers(params, inputs, **settings)
        return model.features(params, inputs, **settings)[0], {}

    def sums(self, task, params, teacher_params, x, layers, batch) -> dict:
        """The task's sums, with the whole loss in place of its own."""
        cfg, student, teacher = self.cfg, self.student, self.teacher
        x_teacher, layers_teacher = self.read(teacher, teacher_params, batch["inputs"])

        def readout(model, params):
            return Partial(model.readout_stored, params)

        sums = task.loss(x, readout(student, params), batch)
        loss = cfg.hard * sums["loss"]
        if cfg.soft:
            logits, weights = task.scored(x, readout(student, params), batch)
            theirs, _ = task.scored(x_teacher, readout(teacher, teacher_params), batch)
            loss += cfg.soft * soft_loss(logits, jax.lax.stop_gradient(theirs), weights, cfg.temperature)
        if self.compares_layers:
            there_BT = present(batch["inputs"])
            layers_teacher = jax.lax.stop_gradient(every(layers_teacher, len(layers["x_BTD"])))
            apart = 0.0
            if cfg.hidden:
                w_DE = params["distill"]["w"] if "distill" in params else None
                apart += cfg.hidden * hidden_loss(layers["x_BTD"], layers_teacher["x_BTD"], there_BT, w_DE)
            if cfg.attention:
                sees_BTS = seen(batch["inputs"], "causal" in innermost(student)[1].traits)
                apart += cfg.attention * attention_loss(layers, layers_teacher, sees_BTS)
            loss += apart * sums["weight"]  # means already; what is summed here is divided by the weight
        return sums | {"loss": loss}


# --- the terms ------------------------------------------------------------------------------------


def soft_loss(logits, theirs, weights, temperature: float):
    """T^2 times the summed KL divergence of the student's distributions [..., C] from the teacher's.

    The square keeps the gradient's size independent of T.
    """
    dtype = jnp.promote_types(logits.dtype, jnp.float32)
    ours = jax.nn.log_softmax(logits.astype(dtype) / temperature)
    theirs = jax.nn.log_softmax(theirs.astype(dtype) / temperature)
    share = jnp.exp(theirs)
    apart = jnp.where(share > 0, share * (theirs - ours), 0).sum(-1)  # the vocabulary's padding has no share
    return temperature**2 * (apart * weights).sum()


def hidden_loss(x_NBTD, theirs_NBTE, there_BT, w_DE=None):
    """The mean squared difference of layers' outputs over layers, present positions and features."""
    dtype = jnp.promote_types(x_NBTD.dtype, jnp.float32)
    x_NBTE = x_NBTD if w_DE is None else jnp.einsum("NBTD,DE->NBTE", x_NBTD, w_DE.astype(x_NBTD.dtype))
    apart_NBT = jnp.square(x_NBTE.astype(dtype) - theirs_NBTE.astype(dtype)).mean(-1)
    return jnp.where(there_BT, apart_NBT, 0).sum() / (len(x_NBTE) * jnp.maximum(there_BT.sum(), 1))


def attention_loss(layers, theirs, sees_BTS):
    """The mean squared difference of attention's scores over layers, heads and pairs that see each other."""
    apart_NBHTS = jnp.square(scores(layers) - scores(theirs))
    count = apart_NBHTS.shape[0] * apart_NBHTS.shape[2] * jnp.maximum(sees_BTS.sum(), 1)
    return jnp.where(sees_BTS[:, None], apart_NBHTS, 0).sum() / count


def scores(layers):
    """Attention's scores before the softmax, [N, B, H, T, S]."""
    q_NBTHK, k_NBSHK = layers["q_BTHK"], layers["k_BTHK"]
    dtype = jnp.promote_types(q_NBTHK.dtype, jnp.float32)
    scale = q_NBTHK.shape[-1] ** -0.5
    return scale * jnp.einsum("NBTHK,NBSHK->NBHTS", q_NBTHK, k_NBSHK, preferred_element_type=dtype)


def every(layers, num_layers: int):
    """Of a teacher's layers those that a student of `num_layers` follows: the last of each equal part."""
    return {name: x[len(x) // num_layers - 1 :: len(x) // num_layers] for name, x in layers.items()}


def seen(inputs, causal: bool):
    """Which position attends to which, [B, T, S]: to those of its text, or of its text so far."""
    there_BT, T = present(inputs), inputs["tokens"].shape[1]
    text_BT = inputs.get("segments", jnp.ones_like(inputs["tokens"]))
    sees_BTS = there_BT[:, :, None] & there_BT[:, None, :] & (text_BT[:, :, None] == text_BT[:, None, :])
    return sees_BTS & (jnp.tri(T, dtype=bool) | (not causal))
