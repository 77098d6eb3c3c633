"""Keras's LSTM, GRU and SimpleRNN: the arrays of their get_weights() to zoo's stack, and back.

    weights = [layer.get_weights() for layer in model.layers if ...]    # one list a recurrent layer
    config  = config_from_keras(weights)
    stack   = stack_from_keras(weights, config)
    layer.set_weights(stack_to_keras(stack, config)[0])                 # of layer 0

    Keras, with its gates side by side            zoo
    kernel [E, G Z]                               layer0/w_in [E, G, Z]
    recurrent_kernel [R, G Z]                     layer0/w [R, G, Z]
    bias [G Z]; GRU with reset_after [2, G Z]     layer0/b, b_recurrent or b_candidate [G, Z]

A Bidirectional layer's six arrays are those of its forward layer and then those of its backward layer
(merge_mode "concat", the default). Gates of an LSTM: input, forget, candidate, output, as here. Of a GRU:
update, reset, candidate, where zoo has the reset gate first. A GRU with reset_after=True (the default) has
two biases and is zoo's "gru", for which rnn_biases.py says what may be added; with reset_after=False it
has one, and is "gru_original". Layers made with use_bias=False are read as biases of zero.

Where a row is shorter than the batch, zoo's output is zero behind its end; Keras's is so only with
`zero_output_for_mask`, and repeats the last one otherwise.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import CheckpointError, ConfigError
from zoo.models.rnn import CELLS, RNNConfig
from zoo.pretrained.finite import check_finite
from zoo.pretrained.rnn_biases import biases_from, biases_of
from zoo.pretrained.tensors import as_floats, check_tensors

NAMES = ("kernel", "recurrent_kernel", "bias")
GATES = {
    "lstm": [0, 1, 2, 3],
    "gru": [1, 0, 2],
    "gru_original": [1, 0, 2],
}  # theirs in our order; an involution
REMEDY = "take the config that config_from_keras reads from them"


def stack_from_keras(weights: Sequence[Sequence[np.ndarray]], config: RNNConfig) -> dict:
    """The parameters of a stack: {"layer0": {"w_in": ..., ...}, "layer0_reverse": ...}, NumPy arrays.

    Raises CheckpointError, one line that lists the arrays that are missing, unexpected or of another
    shape or names one that is not finite, and ConfigError for layers that Keras does not have.
    """
    wanted = shapes(config)
    arrays = named(weights, config.num_directions)
    check_finite(arrays)
    if not any(name.endswith("/bias") for name in arrays):
        arrays |= {name: np.zeros(shape, np.float16) for name, shape in wanted.items() if "/bias" in name}
    check_tensors(arrays, wanted, what=f"stack of {config.num_layers} {config.cell}", remedy=REMEDY)
    arrays = as_floats(arrays)
    stack = {}
    for layer in range(config.num_layers):
        for reverse in ("", "_reverse")[: config.num_directions]:
            name, dims = f"layer{layer}{reverse}", config.layer_dims(layer)
            kernel, recurrent_kernel, bias = (arrays[f"{name}/{kind}"] for kind in NAMES)
            stack[name] = layer_from_keras(kernel, recurrent_kernel, bias, config, dims)
    return stack


def stack_to_keras(stack: Mapping, config: RNNConfig) -> list[list[np.ndarray]]:
    """What set_weights() of each layer takes, or of each Bidirectional layer."""
    wanted = shapes(config)
    made = []
    for layer in range(config.num_layers):
        arrays = []
        for reverse in ("", "_reverse")[: config.num_directions]:
            name = f"layer{layer}{reverse}"
            parts = layer_to_keras(stack[name], config)
            for kind, part in zip(NAMES, parts, strict=True):
                arrays.append(part.reshape(wanted[f"{name}/{kind}"]))
        made.append(arrays)
    return made


def shapes(config: RNNConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array. Raises ConfigError where Keras has no such layers."""
    if config.d_projection:
        raise ConfigError(f"d_projection={config.d_projection}: Keras's LSTM has no projection; set it to 0")
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(config.num_layers):
        dims = config.layer_dims(layer)
        gates, below = dims["G"] * dims["Z"], dims.get("D") or dims["E"]
        bias = (2, gates) if config.cell == "gru" else (gates,)
        for reverse in ("", "_reverse")[: config.num_directions]:
            sizes = ((below, gates), (dims["R"], gates), bias)
            found |= {f"layer{layer}{reverse}/{kind}": size for kind, size in zip(NAMES, sizes, strict=True)}
    return found


def named(weights: Sequence[Sequence[np.ndarray]], num_directions: int) -> dict[str, np.ndarray]:
    """The arrays by name: "layer0/kernel", "layer0_reverse/bias"."""
    found = {}
    for layer, arrays in enumerate(weights):
        each = 2 if len(arrays) == 2 * num_directions else 3
        for i, array in enumerate(arrays):
            end = ["", "_reverse"][i // each] if i // each < num_directions else f"_{i // each}"
            found[f"layer{layer}{end}/{NAMES[i % each]}"] = np.asarray(array)
    return found


def layer_from_keras(kernel, recurrent_kernel, bias, config: RNNConfig, dims: Mapping[str, int]) -> dict:
    """One layer in one direction; arrays are known to fit."""
    order = GATES.get(config.cell, [0])

    def gates(x):
        return x.reshape(-1, dims["G"], dims["Z"])[:, order]

    biases = gates(bias)  # one or two
    recurrent_GZ = biases[1] if len(biases) == 2 else np.zeros_like(biases[0])
    return {
        "w_in": gates(kernel),
        "w": gates(recurrent_kernel),
        **biases_from(biases[0], recurrent_GZ, config),
    }


def layer_to_keras(params: Mapping, config: RNNConfig) -> tuple[np.ndarray, ...]:
    """Kernel, recurrent kernel and bias of one layer in one direction; gates and units still apart."""
    order = GATES.get(config.cell, [0])
    b_GZ, recurrent_GZ = biases_of(params)
    bias = np.stack([b_GZ, recurrent_GZ]) if config.cell == "gru" else b_GZ + recurrent_GZ
    kernel, recurrent_kernel = np.asarray(params["w_in"]), np.asarray(params["w"])
    return kernel[:, order], recurrent_kernel[:, order], bias[..., order, :]


def config_from_keras(weights: Sequence[Sequence[np.ndarray]], *, activation: str = "") -> RNNConfig:
    """What the arrays tell of their layers: cell, number, widths and directions. A GRU's two biases are kept.

    A SimpleRNN's `activation` ("tanh" or "relu") must be told, and so must be what a GRU without biases
    is ("gru" or "gru_original": dataclasses.replace(config, cell=...)). Dropout, which arrays do not tell,
    is 0. Raises CheckpointError where they are no recurrent layer's.
    """
    counts = {len(arrays) for arrays in weights}
    sizes = [np.shape(array) for array in weights[0]] if weights else []
    if len(counts) != 1 or len(sizes) not in (2, 3, 4, 6) or len(sizes[0]) != 2 or len(sizes[1]) != 2:
        raise CheckpointError(
            f"layers of {sorted(counts)} arrays; a recurrent layer has kernel, recurrent_kernel and bias, "
            "a Bidirectional one these twice: give one list a layer, as its get_weights() does"
        )
    (d_model, columns), (units, _) = sizes[:2]
    has_bias = len(sizes) % 3 == 0
    cell = cell_of(columns, units, sizes[2] if has_bias else (), activation)
    return RNNConfig(
        vocab_size=0,
        cell=cell,
        direction="both" if len(sizes) > 3 else "forward",
        num_layers=len(weights),
        d_model=d_model,
        d_state=units,
        recurrent_bias=cell == "gru" and has_bias,
        dropout_rate=0.0,
        init_scale=0.0,
    )


def cell_of(columns: int, units: int, bias: tuple[int, ...], activation: str) -> Any:
    """Which cell has so many columns of weights for so many units, and a bias of this shape."""
    if columns == units:
        if activation not in ("tanh", "relu"):
            raise CheckpointError(
                f"activation={activation!r}: say 'tanh' or 'relu', a SimpleRNN's arrays do not tell"
            )
        return f"elman_{activation}"
    if columns == CELLS["gru"].gates * units:
        return "gru_original" if len(bias) == 1 else "gru"
    if columns == CELLS["lstm"].gates * units:
        return "lstm"
    raise CheckpointError(
        f"kernel has {columns} columns for {units} units; an LSTM has {4 * units}, a GRU {3 * units}, "
        f"a SimpleRNN {units}"
    )
