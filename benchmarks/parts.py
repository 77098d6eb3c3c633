"""Where a train step's time goes: its parts alone, and what a compiled program says of itself.

    matmul        the model's FLOPs without attention's, at the matmul rate measured beside it: computed
    attention     forward and backward of one layer's scores and mixing, times layers: measured
    recurrence    forward and backward of the layers between table and output: measured
    optimizer     norms, clipping, update: measured
    host          placing a batch, and calling a program with the same arguments that does nothing: measured
    rest          the step less all of these: elementwise, norms, loss, copies, and what overlaps (negative)

A part alone has its inputs in memory, where in the step they may still be in a cache; so the rest is rough.
"""

import dataclasses
import statistics
import time

import jax
import jax.numpy as jnp

from zoo.attention import attention
from zoo.models.rnn_config import RNNConfig
from zoo.norms import global_norm
from zoo.optim import precision
from zoo.optim.finetune import without
from zoo.plan.matmuls import matmul_flops
from zoo.plan.program import read_program
from zoo.plan.traffic import memory_bytes
from zoo.sees import Causal, Segments

REPEATS = 5


def of_program(text: str) -> dict:
    """FLOPs of its matmuls, 0 where they are library calls, and bytes that it must move: a lower bound."""
    program = read_program(text)
    return {"program_flops": matmul_flops(program), "program_traffic_bytes": memory_bytes(program)}


def of_training(run, rate: float) -> dict:
    """{part: {"ms", "how"}} of a benchmarks.ours.TrainingRun; `rate` in FLOP/s. Its state is given up."""
    recipe = run.work.recipe
    config, length = recipe.model, recipe.data.length
    whole = run.work.flops()[0]
    if isinstance(config, RNNConfig):
        inner, name = config.flops_of_features(length).full * run.work.positions, "recurrence"
        inner_s = recurrence_s(run)
    else:
        inner, name = 12.0 * config.num_layers * config.d_model * length * run.work.positions, "attention"
        inner_s = config.num_layers * attention_s(run)
    return {
        "matmul": {"ms": 1e3 * (whole - inner) / rate, "how": "computed: FLOPs at the matmul rate"},
        name: {"ms": 1e3 * inner_s, "how": f"measured: {inner / inner_s / 1e9:.0f} GFLOP/s"},
        "host": {"ms": 1e3 * host_s(run), "how": "measured: placing a batch, calling an empty program"},
        "optimizer": {"ms": 1e3 * optimizer_s(run), "how": "measured: norms, clipping, update"},
    }


def median_s(call) -> float:
    """Of a few calls, each waited for; the first is not counted."""
    found = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def attention_s(run) -> float:
    """One layer's, forward and backward, of random queries, keys and values."""
    recipe, batch = run.work.recipe, run.batch(0)
    config = recipe.model
    B, T, H = recipe.data.batch_size, recipe.data.length, config.num_heads
    shape = (B, T, H, config.d_model // H)
    x = [jax.random.normal(jax.random.key(n), shape, config.dtype) for n in range(4)]
    sees = Causal()
    if "segments" in batch["inputs"]:
        sees = Segments(jnp.asarray(batch["inputs"]["segments"]))

    def loss(q_BTHK, k_BTHK, v_BTHK, d_BTHK, sees):
        return (attention(q_BTHK, k_BTHK, v_BTHK, sees) * d_BTHK).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return median_s(lambda: gradient(*x, sees))


def recurrence_s(run) -> float:
    """The layers' features and their gradient: the table is looked up, and no word is read out."""
    inputs, model = run.place(run.batch(0))["inputs"], run.parts.model

    def loss(params, inputs, carry):
        x_BTD, _ = model.features(params, inputs, state=carry)
        return (x_BTD**2).sum()

    gradient = jax.jit(jax.grad(loss))
    return median_s(lambda: gradient(run.state.params, inputs, run.state.carry))


def host_s(run) -> float:
    """Placing a batch and calling a program that gives the state back as it is."""
    batch, given_back = run.batch(0), jax.jit(lambda state, batch: state, donate_argnums=0)

    def call():
        run.state = given_back(run.state, run.place(batch))
        return run.state.step

    return median_s(call)


def optimizer_s(run) -> float:
    """What the step does once it has gradients (zoo/step.py)."""
    parts = run.parts

    def update(state, gradients):
        norm = global_norm(gradients)
        params, opt_state, average = parts.updated(state, gradients, norm, jnp.isfinite(norm))
        state = dataclasses.replace(state, params=params, opt_state=opt_state, average=average)
        return state, global_norm(precision.wide(params))

    call = jax.jit(update, donate_argnums=0)
    gradients = jax.tree.map(
        lambda x: 1e-3 * x + 1e-6, precision.wide(without(run.state.params, parts.frozen))
    )

    def once():
        run.state, norm = call(run.state, gradients)
        return norm

    return median_s(once)
