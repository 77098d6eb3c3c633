"""Fine-tuning BERT for twenty steps: the losses that PyTorch and transformers find, step by step.

The whole path at once: the encoder under a classifier whose tanh layer is BERT's pooler, the loss, clipping,
AdamW, what its weight decay leaves alone, and the schedule.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from goldens import finetune as goldens

from zoo import models
from zoo.models.classifier import ClassifierConfig
from zoo.optim import AdamW, transform
from zoo.pretrained.bert import config_from_hf, from_hf, places
from zoo.schedules import SlantedTriangle
from zoo.step import TrainState, TrainStep
from zoo.tasks import Classify

each_decay = pytest.mark.parametrize("decay", goldens.DECAYS)


def classifier() -> ClassifierConfig:
    encoder = config_from_hf({"model_type": "bert", **goldens.SETTINGS})
    encoder = dataclasses.replace(encoder, dropout_rate=0.0)
    sizes = {"num_classes": goldens.CLASSES, "d_hidden": encoder.d_model}
    return ClassifierConfig(encoder=encoder, pooling="first", dropout_rate=0.0, **sizes)


def first_parameters(config: ClassifierConfig) -> dict:
    """The golden's weights, drawn again by their names."""
    drawn = goldens.weights({name: place.shape for name, place in places(config).items()})
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), from_hf(drawn, config))


def losses(decay: float) -> np.ndarray:
    """zoo's loss at every step."""
    model = models.create(classifier())
    adamw = AdamW(goldens.RATE, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=decay)
    schedule = SlantedTriangle(goldens.WARMUP / goldens.STEPS)
    tx = transform(adamw, schedule, goldens.STEPS, model.abstract())
    parts = TrainStep(model, Classify(), tx, clip_norm=goldens.CLIP_NORM)
    params = first_parameters(model.config)
    state = TrainState(jnp.zeros((), jnp.int32), params, tx.init(params), None)
    step, found = jax.jit(parts.step), []
    for number in range(goldens.STEPS):
        examples = goldens.batch(number) | {"present": np.ones(goldens.ROWS, np.float32)}
        state, metrics = step(state, Classify().batch(examples))
        found.append(float(metrics["loss"]))
    return np.array(found)


@each_decay
def test_twenty_steps_of_fine_tuning_follow_pytorchs(decay):
    """Ours in float32, theirs in float64; they part by rounding alone."""
    expected = np.array(json.loads(goldens.FILE.read_text())[str(decay)])
    apart = np.abs(losses(decay) - expected)
    print(f"losses {expected[0]:.4f} -> {expected[-1]:.4f}, furthest apart {apart.max():.1e}")
    assert apart.max() <= 1e-4
    assert np.ptp(expected) > 0.3, "the losses hardly moved: they prove nothing"


@pytest.mark.parity
@each_decay
def test_the_golden_losses_are_what_pytorch_finds_today(decay):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    expected = json.loads(goldens.FILE.read_text())[str(decay)]
    np.testing.assert_allclose(goldens.torch_losses(decay), expected, rtol=1e-9)
