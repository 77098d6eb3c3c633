"""Textbook Flax NNX: models put together from its own layers as its examples do, trained by nnx.jit.

nnx.MultiHeadAttention attends by jax.nn.dot_product_attention's XLA form; nnx.RNN scans OptimizedLSTMCell,
with the input's projection inside the loop. nnx.GRUCell lacks the candidate's bias, so it has no row.
"""

import time
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.side import peak_bytes
from zoo.models.rnn_config import RNNConfig
from zoo.optim import SGD


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("jax", "flax", "optax")}


def make(work, folder: Path, how: str):
    with np.load(folder / "weights.npz") as found:
        tensors = {name: found[name] for name in found.files}
    kind = LanguageModel if isinstance(work.recipe.model, RNNConfig) else GPT
    return TrainingRun(work, kind(work.recipe.model, nnx.Rngs(0)), tensors)


class GPT(nnx.Module):
    """Pre-norm blocks, learned positions, the table tied to the readout."""

    def __init__(self, config, rngs):
        self.tokens = nnx.Embed(config.vocab_size, config.d_model, rngs=rngs)
        self.positions = nnx.Embed(config.max_length, config.d_model, rngs=rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.num_layers)])
        self.norm = nnx.LayerNorm(config.d_model, epsilon=1e-5, use_bias=config.bias, rngs=rngs)
        self.dtype = config.dtype

    def __call__(self, tokens_BT, state):
        x_BTD = self.tokens(tokens_BT) + self.positions(jnp.arange(tokens_BT.shape[1]))
        x_BTD = x_BTD.astype(self.dtype)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.tokens.attend(self.norm(x_BTD)), state

    def load(self, tensors, config):
        """From GPT2LMHeadModel's names, whose kernels are [inputs, outputs]."""
        given = {name.removeprefix("transformer."): x for name, x in tensors.items()}
        D, H = config.d_model, config.num_heads

        def norm(layer, name):
            put(layer.scale, given[f"{name}.weight"])
            if config.bias:
                put(layer.bias, given[f"{name}.bias"])

        def linear(layer, kernel, bias):
            put(layer.kernel, kernel.reshape(layer.kernel.shape))
            if config.bias:
                put(layer.bias, bias.reshape(layer.bias.shape))

        put(self.tokens.embedding, given["wte.weight"])
        put(self.positions.embedding, given["wpe.weight"])
        norm(self.norm, "ln_f")
        for n, block in enumerate(self.blocks):
            norm(block.norm1, f"h.{n}.ln_1")
            norm(block.norm2, f"h.{n}.ln_2")
            kernel, bias = given[f"h.{n}.attn.c_attn.weight"], given[f"h.{n}.attn.c_attn.bias"]
            for part, layer in enumerate((block.attention.query, block.attention.key, block.attention.value)):
                mine = slice(part * D, (part + 1) * D)
                linear(layer, kernel[:, mine].reshape(D, H, D // H), bias[mine])
            out = f"h.{n}.attn.c_proj"
            linear(block.attention.out, given[f"{out}.weight"], given[f"{out}.bias"])
            for layer, name in ((block.up, "c_fc"), (block.down, "c_proj")):
                linear(layer, given[f"h.{n}.mlp.{name}.weight"], given[f"h.{n}.mlp.{name}.bias"])


class Block(nnx.Module):
    """Attention, then a feed-forward layer."""

    def __init__(self, config, rngs):
        D, dtype, bias = config.d_model, config.dtype, config.bias
        self.norm1, self.norm2 = (
            nnx.LayerNorm(D, epsilon=1e-5, use_bias=bias, dtype=dtype, rngs=rngs) for _ in range(2)
        )
        self.attention = nnx.MultiHeadAttention(
            config.num_heads, D, use_bias=bias, dtype=dtype, decode=False, rngs=rngs
        )
        self.up = nnx.Linear(D, 4 * D, use_bias=bias, dtype=dtype, rngs=rngs)
        self.down = nnx.Linear(4 * D, D, use_bias=bias, dtype=dtype, rngs=rngs)
        self.tanh = config.activation == "gelu_tanh"

    def __call__(self, x_BTD):
        mask = nnx.make_causal_mask(x_BTD[..., 0])
        x_BTD = x_BTD + self.attention(self.norm1(x_BTD), mask=mask)
        return x_BTD + self.down(nnx.gelu(self.up(self.norm2(x_BTD)), approximate=self.tanh))


class LanguageModel(nnx.Module):
    """A table, nnx.RNN layers, a readout."""

    def __init__(self, config, rngs):
        self.tokens = nnx.Embed(config.vocab_size, config.d_model, rngs=rngs)
        self.layers = nnx.List(
            nnx.RNN(
                nnx.OptimizedLSTMCell(config.d_model, config.d_state, dtype=config.dtype, rngs=rngs),
                return_carry=True,
            )
            for _ in range(config.num_layers)
        )
        self.readout = nnx.Linear(config.d_state, config.vocab_size, rngs=rngs)

    def __call__(self, tokens_BT, state):
        x_BTD, after = self.tokens(tokens_BT), []
        for layer, carry in zip(self.layers, state, strict=True):
            carry, x_BTD = layer(x_BTD, initial_carry=carry)
            after.append(carry)
        return self.readout(x_BTD), after

    def load(self, tensors, config):
        """From word_language_model's names; gates lie in torch's order there and here."""
        put(self.tokens.embedding, tensors["encoder.weight"])
        put(self.readout.kernel, tensors["decoder.weight"].T)
        put(self.readout.bias, tensors["decoder.bias"])
        for n, layer in enumerate(self.layers):
            cell = layer.cell
            put(cell.dense_i.kernel, tensors[f"rnn.weight_ih_l{n}"].T)
            put(cell.dense_h.kernel, tensors[f"rnn.weight_hh_l{n}"].T)
            bias = tensors[f"rnn.bias_ih_l{n}"] + tensors[f"rnn.bias_hh_l{n}"]
            put((cell.dense_h if cell.dense_h.bias is not None else cell.dense_i).bias, bias)


def put(param, value) -> None:
    param[...] = jnp.asarray(value, param.dtype)


class TrainingRun:
    """nnx.Optimizer over optax, nnx.jit around loss, gradient and update; the arrays are given up."""

    def __init__(self, work, model, tensors):
        self.work, recipe = work, work.recipe
        model.load(tensors, recipe.model)
        self.state = zeros_of(recipe)
        self.model, self.optimizer = model, nnx.Optimizer(model, transform_of(recipe), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer, state, tokens_BT):
            def loss_of(model):
                logits, after = model(tokens_BT[:, :-1], state)
                nats = optax.softmax_cross_entropy_with_integer_labels(
                    logits.astype(jnp.float32), tokens_BT[:, 1:]
                )
                return nats.mean(), after

            (loss, after), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
            optimizer.update(model, gradients)
            return loss, after

        self.jitted = step

    def step(self, tokens_BT):
        loss, self.state = self.jitted(self.model, self.optimizer, self.state, jnp.asarray(tokens_BT))
        return loss

    def tokens(self, step: int) -> np.ndarray:
        return self.work.data.batch(step, range(self.work.recipe.data.batch_size))["tokens"]

    def start(self) -> dict:
        return {"compile_s": None}

    def first(self, count: int) -> dict[str, np.ndarray]:
        return {"losses": np.array([float(self.step(self.tokens(n))) for n in range(count)])}

    def turn(self, step: int, count: int) -> list[float]:
        batches = [self.tokens(step + n) for n in range(count)]
        start, found = time.perf_counter(), []
        for tokens_BT in batches:
            loss = self.step(tokens_BT)
            if jax.default_backend() == "cpu":
                float(loss)
                found.append(time.perf_counter() - start)
                start = time.perf_counter()
        if found:
            return found
        float(loss)
        return [(time.perf_counter() - start) / count]

    def facts(self) -> dict:
        stats = jax.local_devices()[0].memory_stats() or {}
        device = {"device_bytes": stats["peak_bytes_in_use"]} if "peak_bytes_in_use" in stats else {}
        return {"process_bytes": peak_bytes()} | device


def zeros_of(recipe):
    """The state that rows begin with; of a GPT nothing."""
    config = recipe.model
    if not isinstance(config, RNNConfig):
        return None
    zeros = jnp.zeros((recipe.data.batch_size, config.d_state), config.dtype)
    return [(zeros, zeros)] * config.num_layers


def transform_of(recipe):
    rule = recipe.optimizer
    if isinstance(rule, SGD):
        change = optax.sgd(rule.learning_rate)
    else:
        decays = {"weight_decay": rule.weight_decay, "mask": matrices}
        change = optax.adamw(rule.learning_rate, rule.beta1, rule.beta2, rule.eps, **decays)
    return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), change)


def matrices(tree):
    """Which parameters are decayed: kernels and tables."""

    def is_one(path, x):
        return any(name in jax.tree_util.keystr(path) for name in ("kernel", "embedding"))

    return jax.tree_util.tree_map_with_path(is_one, tree)
