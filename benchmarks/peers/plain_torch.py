"""Models in plain torch, eager or compiled: a GPT as nanoGPT has it, language models as torch's own example
word_language_model, and torch.nn's recurrent layers alone."""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks import rates
from benchmarks.peers import torch_run
from benchmarks.peers.torch_run import device, on_device
from benchmarks.workloads import Stack
from zoo.models.rnn_config import RNNConfig

LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def versions() -> dict[str, str]:
    return {"torch": metadata.version("torch")}


def make(work, folder: Path, how: str):
    torch_run.prepare()
    if isinstance(work, Stack):
        return StackRun(work, how)
    model = (language_model if isinstance(work.recipe.model, RNNConfig) else gpt)(work, folder)
    return model(how)


# --- GPT ------------------------------------------------------------------------------------------


class GPT(torch.nn.Module):
    """Names of tensors are those of GPT2LMHeadModel, whose kernels are [inputs, outputs]."""

    def __init__(self, config):
        super().__init__()
        D, self.config = config.d_model, config
        self.wte = torch.nn.Embedding(config.vocab_size, D)
        self.wpe = torch.nn.Embedding(config.max_length, D)
        self.h = torch.nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.ln_f = torch.nn.LayerNorm(D, bias=config.bias)

    def forward(self, tokens_BT, targets_BT):
        x_BTD = self.wte(tokens_BT) + self.wpe(torch.arange(tokens_BT.shape[1], device=tokens_BT.device))
        for block in self.h:
            x_BTD = block(x_BTD)
        logits_BTV = F.linear(self.ln_f(x_BTD), self.wte.weight)
        return F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())


class Block(torch.nn.Module):
    """Causal attention, then a feed-forward layer."""

    def __init__(self, config):
        super().__init__()
        D, bias = config.d_model, config.bias
        self.heads, self.tanh = config.num_heads, config.activation == "gelu_tanh"
        self.ln_1, self.ln_2 = (torch.nn.LayerNorm(D, bias=bias) for _ in range(2))
        self.c_attn, self.c_proj = torch.nn.Linear(D, 3 * D, bias), torch.nn.Linear(D, D, bias)
        self.up, self.down = torch.nn.Linear(D, 4 * D, bias), torch.nn.Linear(4 * D, D, bias)

    def forward(self, x_BTD):
        B, T, D = x_BTD.shape
        q, k, v = (
            x.view(B, T, self.heads, -1).transpose(1, 2) for x in self.c_attn(self.ln_1(x_BTD)).chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, D)
        x_BTD = x_BTD + self.c_proj(y)
        h = F.gelu(self.up(self.ln_2(x_BTD)), approximate="tanh" if self.tanh else "none")
        return x_BTD + self.down(h)


PLACES = {"attn.c_attn": "c_attn", "attn.c_proj": "c_proj", "mlp.c_fc": "up", "mlp.c_proj": "down"}


def gpt(work, folder: Path):
    """how -> its run."""
    config = work.recipe.model
    model, tensors = GPT(config), {}
    for name, x in torch_run.weights(folder).items():
        name = name.removeprefix("transformer.")
        for theirs, here in PLACES.items():
            if theirs in name:
                name, x = name.replace(theirs, here), x.T if x.ndim == 2 else x
        if config.bias or not name.endswith("bias"):
            tensors[name] = x
    model.load_state_dict(tensors)

    def run(how: str):
        forward = torch.compile(model) if how == "compiled" else model

        def loss_of(batch):
            tokens_BT = on_device(batch["tokens"], torch.long)
            return forward(tokens_BT[:, :-1], tokens_BT[:, 1:])

        return torch_run.TrainingRun(work, model, loss_of)

    return run


# --- recurrent ------------------------------------------------------------------------------------


class LanguageModel(torch.nn.Module):
    """Names as in word_language_model."""

    def __init__(self, config):
        super().__init__()
        self.encoder = torch.nn.Embedding(config.vocab_size, config.d_model)
        self.rnn = LAYERS[config.cell](config.d_model, config.d_state, config.num_layers)
        self.decoder = torch.nn.Linear(config.d_state, config.vocab_size)

    def forward(self, tokens_TB, state, targets_TB):
        h_TBZ, state = self.rnn(self.encoder(tokens_TB), state)
        logits = self.decoder(h_TBZ).flatten(0, 1).float()
        return F.cross_entropy(logits, targets_TB.flatten()), state


def language_model(work, folder: Path):
    """how -> its run; one bias a gate is trained, as zoo has it, the GRU's own of the candidate beside it."""
    config = work.recipe.model
    model = LanguageModel(config)
    torch_run.load(model, folder)
    for name, parameter in model.named_parameters():
        if "bias_hh" in name:
            parameter.requires_grad_(config.cell == "gru")
            if config.cell == "gru":
                parameter.register_hook(candidate_alone)
    zeros = torch.zeros(config.num_layers, work.recipe.data.batch_size, config.d_state, device=device())
    state = (zeros, zeros.clone()) if config.cell == "lstm" else zeros

    def run(how: str):
        forward = torch.compile(model) if how == "compiled" else model

        def loss_of(batch):
            nonlocal state
            tokens_TB = on_device(batch["tokens"], torch.long).T
            loss, new = forward(tokens_TB[:-1], state, tokens_TB[1:])
            state = tuple(x.detach() for x in new) if isinstance(new, tuple) else new.detach()
            return loss

        return torch_run.TrainingRun(work, model, loss_of)

    return run


def candidate_alone(gradient: torch.Tensor) -> torch.Tensor:
    """Of a GRU's recurrent bias: those of reset and update are one with the input's."""
    cleared = gradient.clone()
    cleared[: 2 * len(gradient) // 3] = 0
    return cleared


class StackRun:
    """torch.nn.LSTM, GRU or RNN, forward and backward."""

    def __init__(self, work: Stack, how: str):
        self.work = work
        params, x_TBD, d_TBZ = work.arrays()
        net = LAYERS[work.cell](work.width, work.width, work.layers)
        with torch.no_grad():
            for n, layer in enumerate(params):
                for name, kernel in (("weight_ih", "w_in"), ("weight_hh", "w")):
                    getattr(net, f"{name}_l{n}").copy_(torch.tensor(layer[kernel].reshape(work.width, -1).T))
                getattr(net, f"bias_ih_l{n}").copy_(torch.tensor(layer["b_in"].ravel()))
                getattr(net, f"bias_hh_l{n}").zero_()
                if work.cell == "gru":
                    getattr(net, f"bias_hh_l{n}")[2 * work.width :] = torch.tensor(layer["b"])
        self.net = net.to(device())
        self.forward = torch.compile(self.net) if how == "compiled" else self.net
        self.inputs = on_device(x_TBD).requires_grad_()
        self.d_out = on_device(d_TBZ)

    def step(self):
        self.inputs.grad = None
        self.net.zero_grad(set_to_none=True)
        outputs, _ = self.forward(self.inputs)
        outputs.backward(self.d_out)
        if device().type == "cuda":
            torch.cuda.synchronize()
        return outputs

    def start(self) -> dict:
        return {"compile_s": rates.seconds(self.step) if self.forward is not self.net else None}

    def first(self) -> dict[str, np.ndarray]:
        found = {"y": self.step().detach(), "d_x": self.inputs.grad}
        for n in range(self.work.layers):
            for theirs, ours in (("weight_ih", "w_in"), ("weight_hh", "w"), ("bias_ih", "b_in")):
                found[f"{ours}_l{n}"] = getattr(self.net, f"{theirs}_l{n}").grad
            if self.work.cell == "gru":
                found[f"b_l{n}"] = getattr(self.net, f"bias_hh_l{n}").grad[2 * self.work.width :]
        return {name: x.cpu().numpy() for name, x in found.items()}

    def turn(self, step: int, count: int) -> list[float]:
        return [rates.seconds(self.step) for _ in range(count)]

    def facts(self) -> dict:
        return torch_run.memory()

    def matmul(self) -> float:
        return torch_run.matmul("float32")
