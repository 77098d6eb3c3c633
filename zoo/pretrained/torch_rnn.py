"""torch.nn.LSTM, GRU and RNN: their state dicts to zoo's stack of recurrent layers, and back.

    config  = config_from_torch(tensors)           # what a state dict tells of its model
    stack   = stack_from_torch(tensors, config)    # dict of name -> array, as read_tensors(path) gives it
    tensors = stack_to_torch(stack, config)        # write_tensors(path, tensors) makes a .safetensors of it
    params  = from_torch(tensors, config)          # a whole language model, as torch's tutorial
    tensors = to_torch(params, config)             # "word_language_model" names it

    torch                                         zoo
    weight_ih_l1 [G Z, E]                         layer1/w_in [E, G, Z]
    weight_hh_l1 [G Z, R]                         layer1/w [R, G, Z]
    weight_hr_l1 [R, Z]   (proj_size)             layer1/projection [Z, R]
    bias_ih_l1, bias_hh_l1 [G Z]                  layer1/b, layer1/b_recurrent [G, Z]
    ..._l1_reverse                                layer1_reverse/...
    encoder.weight [V, D], decoder.weight [V, E]  tokens/table, words/table, stored with V padded by zeros
    rnn....., decoder.bias [V]                    stack/..., bias

Both name the gates in the same order. The two biases are kept one to one where `recurrent_bias` is True and
added where that is equivalent otherwise (rnn_biases.py); written back, the sum is bias_ih and bias_hh is
zero: the same function. A state dict without any bias (bias=False) is read as biases of zero.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from zoo.errors import CheckpointError, ConfigError
from zoo.lettered import stored_size
from zoo.models.rnn import CELLS, RNNConfig
from zoo.pretrained.finite import check_finite
from zoo.pretrained.rnn_biases import biases_from, biases_of
from zoo.pretrained.tensors import as_floats, check_tensors, listed

RNN = "rnn."  # before the recurrent tensors' names in a whole model
REMEDY = "take the config that config_from_torch reads from them"


# --- the recurrent layers -------------------------------------------------------------------------


def stack_from_torch(tensors: Mapping[str, np.ndarray], config: RNNConfig) -> dict:
    """The parameters of a stack: {"layer0": {"w_in": ..., ...}, "layer0_reverse": ...}, NumPy arrays.

    Raises CheckpointError, one line that lists the tensors that are missing, unexpected or of another
    shape or names one that is not finite, and ConfigError for layers that torch does not have.
    """
    check_finite(tensors)
    wanted = shapes(config)
    tensors = with_biases(tensors, wanted)
    check_tensors(tensors, wanted, what=f"stack of {config.num_layers} {config.cell}", remedy=REMEDY)
    tensors = as_floats(tensors)
    return {ours: layer_from_torch(tensors, theirs, config, dims) for ours, theirs, dims in layers(config)}


def stack_to_torch(stack: Mapping, config: RNNConfig) -> dict[str, np.ndarray]:
    """The state dict of torch's LSTM, GRU or RNN with as many layers, directions and units (proj_size)."""
    wanted = shapes(config)
    made: dict[str, np.ndarray] = {}
    for ours, theirs, _ in layers(config):
        made |= layer_to_torch(stack[ours], theirs, config)
    return {name: made[name].reshape(shape) for name, shape in wanted.items()}


def layers(config: RNNConfig):
    """(name here, ending there, sizes) of every layer and direction."""
    for layer in range(config.num_layers):
        for reverse in ("", "_reverse")[: config.num_directions]:
            yield f"layer{layer}{reverse}", f"l{layer}{reverse}", config.layer_dims(layer)


def shapes(config: RNNConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of torch's tensors, in its order. Raises ConfigError where it has no such layers."""
    if config.cell == "gru_original":
        raise ConfigError(
            "cell=gru_original resets before the matmul, which torch's GRU does not; train cell=gru for torch"
        )
    if len(set(config.widths)) > 1:
        listed_widths = ", ".join(map(str, config.widths))
        raise ConfigError(
            f"layers of widths {listed_widths} are not one torch module, whose layers have one width; "
            f"set d_state={config.widths[-1]}"
        )
    found: dict[str, tuple[int, ...]] = {}
    for _, name, dims in layers(config):
        gates, below = dims["G"] * dims["Z"], dims.get("D") or dims["E"]
        found |= {f"weight_ih_{name}": (gates, below), f"weight_hh_{name}": (gates, dims["R"])}
        found |= {f"bias_ih_{name}": (gates,), f"bias_hh_{name}": (gates,)}
        if config.d_projection:
            found[f"weight_hr_{name}"] = (dims["R"], dims["Z"])
    return found


def with_biases(tensors, wanted) -> dict[str, np.ndarray]:
    """`tensors`, with biases of zero where there is none at all."""
    if any(name.startswith("bias_") for name in tensors):
        return dict(tensors)
    biases = {name: shape for name, shape in wanted.items() if name.startswith("bias_")}
    return dict(tensors) | {name: np.zeros(shape, np.float16) for name, shape in biases.items()}


def layer_from_torch(tensors, name: str, config: RNNConfig, dims: Mapping[str, int]) -> dict:
    """One layer in one direction; tensors are known to fit."""
    G, Z = dims["G"], dims["Z"]
    b_GZ, recurrent_GZ = (tensors[f"bias_{side}_{name}"].reshape(G, Z) for side in ("ih", "hh"))
    params = {
        "w_in": np.moveaxis(tensors[f"weight_ih_{name}"].reshape(G, Z, -1), -1, 0),
        "w": np.moveaxis(tensors[f"weight_hh_{name}"].reshape(G, Z, -1), -1, 0),
        **biases_from(b_GZ, recurrent_GZ, config),
    }
    if config.d_projection:
        params["projection"] = tensors[f"weight_hr_{name}"].T
    return {key: np.ascontiguousarray(x) for key, x in params.items()}


def layer_to_torch(params: Mapping, name: str, config: RNNConfig) -> dict[str, np.ndarray]:
    """One layer in one direction; gates and units still apart."""
    b_GZ, recurrent_GZ = biases_of(params)
    made = {
        f"weight_ih_{name}": np.moveaxis(np.asarray(params["w_in"]), 0, -1),
        f"weight_hh_{name}": np.moveaxis(np.asarray(params["w"]), 0, -1),
        f"bias_ih_{name}": b_GZ,
        f"bias_hh_{name}": recurrent_GZ,
    }
    if config.d_projection:
        made[f"weight_hr_{name}"] = np.asarray(params["projection"]).T
    return made


# --- whole language models ------------------------------------------------------------------------


def from_torch(tensors: Mapping[str, np.ndarray], config: RNNConfig) -> dict:
    """The parameters of a language model: encoder, rnn and decoder, as torch's tutorial names them.

    Of a tied model the decoder's weight may be left out. Raises as `stack_from_torch` does.
    """
    check_finite(tensors)
    wanted = model_shapes(config)
    tensors = with_rnn_biases(tensors, config)
    untied = []
    if config.tied and "encoder.weight" in tensors:
        again = tensors.setdefault("decoder.weight", tensors["encoder.weight"])
        untied = [] if np.array_equal(again, tensors["encoder.weight"]) else ["decoder.weight"]
    what = f"language model of {config.num_layers} {config.cell}"
    check_tensors(tensors, wanted, what=what, remedy=REMEDY, not_tied_to_encoder=untied)
    tensors = as_floats(tensors)
    padding = stored_size("V", config.vocab_size) - config.vocab_size

    def padded(x):
        return np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))

    recurrent = {name.removeprefix(RNN): x for name, x in tensors.items() if name.startswith(RNN)}
    params = {
        "tokens": {"table": padded(tensors["encoder.weight"])},
        "stack": stack_from_torch(recurrent, config),
        "bias": padded(tensors["decoder.bias"]),
    }
    return params | ({} if config.tied else {"words": {"table": padded(tensors["decoder.weight"])}})


def to_torch(params: Mapping, config: RNNConfig) -> dict[str, np.ndarray]:
    """The state dict of the tutorial's RNNModel, which repeats a tied table as the decoder's weight."""

    def visible(x):
        return np.asarray(x)[: config.vocab_size]

    table = visible(params["tokens"]["table"])
    recurrent = stack_to_torch(params["stack"], config)
    return {
        "encoder.weight": table,
        **{RNN + name: x for name, x in recurrent.items()},
        "decoder.weight": table if config.tied else visible(params["words"]["table"]),
        "decoder.bias": visible(params["bias"]),
    }


def model_shapes(config: RNNConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of a language model's tensors."""
    return {
        "encoder.weight": (config.vocab_size, config.d_model),
        **{RNN + name: shape for name, shape in shapes(config).items()},
        "decoder.weight": (config.vocab_size, config.d_features),
        "decoder.bias": (config.vocab_size,),
    }


def with_rnn_biases(tensors, config: RNNConfig) -> dict[str, np.ndarray]:
    """`with_biases` of the recurrent part."""
    recurrent = {name.removeprefix(RNN): x for name, x in tensors.items() if name.startswith(RNN)}
    whole = {RNN + name: x for name, x in with_biases(recurrent, shapes(config)).items()}
    return dict(tensors) | whole


# --- the configuration ----------------------------------------------------------------------------


def config_from_torch(tensors: Mapping[str, np.ndarray], *, nonlinearity: str = "") -> RNNConfig:
    """What a state dict tells of its model: cell, layers, widths, directions, and of a language model the
    vocabulary and whether it is tied. Both biases are kept; dropout, which it does not tell, is 0.

    An Elman network's `nonlinearity` ("tanh" or "relu") must be told. Raises CheckpointError where the
    tensors are no RNN's.
    """
    whole = "encoder.weight" in tensors
    prefix = RNN if whole else ""
    sizes = {name.removeprefix(prefix): np.shape(x) for name, x in tensors.items()}
    matrices = {"weight_ih_l0", "weight_hh_l0"} | ({"weight_hr_l0", "encoder.weight"} & sizes.keys())
    if not all(len(sizes.get(name, ())) == 2 for name in matrices):
        raise CheckpointError(
            f"no matrices {prefix}weight_ih_l0 and {prefix}weight_hh_l0 among "
            f"{listed(sorted(tensors)) or 'no tensors'}; give the state dict of an nn.LSTM, nn.GRU or nn.RNN "
            "without what stands before its names"
        )
    rows, width = sizes["weight_hh_l0"]
    units = sizes.get("weight_hr_l0", sizes["weight_hh_l0"])[1]
    num_directions = 1 + ("weight_ih_l0_reverse" in sizes)
    d_model = sizes["weight_ih_l0"][1]
    tied = False
    if whole:
        output = tensors.get("decoder.weight", tensors["encoder.weight"])
        tied = d_model == num_directions * width and np.array_equal(output, tensors["encoder.weight"])
    return RNNConfig(
        vocab_size=sizes["encoder.weight"][0] if whole else 0,
        cell=cell_of(rows, units, nonlinearity),
        direction="both" if num_directions == 2 else "forward",
        num_layers=sum(f"weight_ih_l{layer}" in sizes for layer in range(len(sizes))),
        d_model=d_model,
        d_state=units,
        d_projection=width if "weight_hr_l0" in sizes else 0,
        tied=tied,
        recurrent_bias="bias_hh_l0" in sizes,
        dropout_rate=0.0,
        init_scale=0.0,
    )


def cell_of(rows: int, units: int, nonlinearity: str) -> Any:
    """Which cell has so many rows of weights for so many units."""
    gates = {CELLS[cell].gates: cell for cell in ("lstm", "gru")}
    if rows == units:
        if nonlinearity not in ("tanh", "relu"):
            raise CheckpointError(
                f"nonlinearity={nonlinearity!r}: say 'tanh' or 'relu', a state dict of nn.RNN does not tell"
            )
        return f"elman_{nonlinearity}"
    if rows not in [count * units for count in gates]:
        raise CheckpointError(
            f"weight_hh_l0 has {rows} rows for {units} units; an LSTM has {4 * units}, a GRU {3 * units}, "
            f"an RNN {units}"
        )
    return gates[rows // units]
