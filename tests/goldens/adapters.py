"""Makes adapters.npz: what peft computes for small random adapters over random models, in float64.

    python tests/goldens/adapters.py     # where the extra `parity` is installed; writes it beside this file

Per case of CASES: logits, the mean loss of the next words, its gradient by both halves of every adapter, the
losses of ten steps of torch's AdamW and the adapters after them, under peft's names. Weights and batches are
not stored but drawn again, from bits that NumPy promises never to change.
"""

import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA = {"vocab_size": 45, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA |= {"num_key_value_heads": 2, "intermediate_size": 14, "max_position_embeddings": 128} | TOKENS
GPT2 = {"vocab_size": 45, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_inner": 20, "n_positions": 16} | TOKENS
GPT2 |= dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
CASES = {  # class, its config.json, LoraConfig
    "llama": ("Llama", LLAMA, {"target_modules": ["q_proj", "v_proj", "down_proj"], "use_rslora": True}),
    "gpt2": ("GPT2", GPT2, {"target_modules": ["attn.c_proj", "c_fc"], "fan_in_fan_out": True}),
    "gpt2_fused": ("GPT2", GPT2, {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
}
RANK, ALPHA = 3, 5
STEPS, RATE, DECAY, CLIP_NORM, ROWS, LENGTH = 10, 1e-2, 0.1, 1.0, 4, 9


def drawn(seed: int, shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors that float32 holds exactly, in the order of their names; norms are about 1."""
    bits = np.random.PCG64(seed)
    found = {}
    for name in sorted(shapes):
        uniform = (bits.random_raw(int(np.prod(shapes[name]))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        is_scale = name.endswith("weight") and ("norm" in name or "ln_" in name)
        found[name] = (is_scale + uniform.reshape(shapes[name]) * 0.4).astype(np.float32).astype(np.float64)
    return found


def batch(step: int) -> np.ndarray:
    """Tokens; two batches in turn, whose rows count up by their own numbers."""
    random = np.random.PCG64(100 + step % 2).random_raw(2 * ROWS).reshape(2, ROWS, 1) >> 40
    return ((random[0] + random[1] % 5 * np.arange(LENGTH)) % 45).astype(np.int32)


def adapted(case: str):
    """peft's model, in float64, its weights drawn by their names."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model

    name, sizes, settings = CASES[case]
    config = getattr(transformers, f"{name}Config")(**sizes, attn_implementation="eager")
    kind = "GPT2LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM"
    base = getattr(transformers, kind)(config).double()
    with torch.no_grad():
        parameters = dict(base.named_parameters())
        for key, x in drawn(1, {key: tuple(x.shape) for key, x in parameters.items()}).items():
            parameters[key].copy_(torch.tensor(x))
    net = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, **settings), autocast_adapter_dtype=False)
    net = net.double()
    with torch.no_grad():
        parameters = adapters(net)
        for key, x in drawn(2, {key: tuple(x.shape) for key, x in parameters.items()}).items():
            parameters[key].copy_(torch.tensor(x))
    return net


def adapters(net) -> dict:
    """The parameters that are trained, as their file names them."""
    found = {name.replace(".default", ""): x for name, x in net.named_parameters() if x.requires_grad}
    return {name.removeprefix("base_model.model."): x for name, x in found.items()}


def loss_of(net, step: int):
    """Logits, and the mean loss of each next word."""
    import torch

    tokens = torch.tensor(batch(step), dtype=torch.int64)
    logits = net(input_ids=tokens).logits[:, :-1]
    return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def results(case: str) -> dict[str, np.ndarray]:
    """All that is recorded of a case."""
    import torch

    net = adapted(case)
    trained = adapters(net)
    logits, loss = loss_of(net, 0)
    loss.backward()
    found = {"logits": logits.detach().numpy(), "loss": loss.detach().numpy()}
    found |= {f"gradient/{name}": x.grad.numpy().copy() for name, x in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(net, step)[1]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.values(), CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())
    return (
        found
        | {"losses": np.array(losses)}
        | {f"last/{name}": x.detach().numpy() for name, x in trained.items()}
    )


def main() -> None:
    found = {f"{case}/{name}": x for case in CASES for name, x in results(case).items()}
    np.savez_compressed(FILE, **found)
    print(f"{FILE}: {FILE.stat().st_size:,} bytes, {len(found)} arrays", file=sys.stderr)


if __name__ == "__main__":
    main()
