"""Makes finetune.json: the losses of twenty steps of fine-tuning a small BERT with PyTorch, in float64.

    python tests/goldens/finetune.py     # where the extra `parity` is installed; writes the file beside it

transformers' BertForSequenceClassification without dropout, torch's AdamW with its weight decay on kernels
and embeddings only, transformers' linear schedule with warm-up, and torch's clipping: what fine-tuning
scripts do.
Weights and batches are not stored but drawn again, from bits that NumPy promises never to change.
"""

import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".json")
SETTINGS = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
SETTINGS |= {"intermediate_size": 48, "max_position_embeddings": 16}
STEPS, WARMUP, RATE, CLIP_NORM, CLASSES, ROWS, LENGTH = 20, 2, 5e-3, 1.0, 3, 8, 12
DECAYS = (0.01, 1.0)  # the papers', and one so large that a wrong choice of what decays shows


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Random tensors that float32 holds exactly, in the order of their names; spread about 0.12."""
    bits = np.random.PCG64(7)
    drawn = {}
    for name in sorted(shapes):
        uniform = (bits.random_raw(int(np.prod(shapes[name]))) >> 40) * 2.0**-23 - 1.0  # 24 bits, in [-1, 1)
        is_scale = "LayerNorm.weight" in name
        drawn[name] = (is_scale + uniform.reshape(shapes[name]) * 0.2).astype(np.float32).astype(np.float64)
    return drawn


def batch(step: int) -> dict[str, np.ndarray]:
    """Two batches in turn, rows of different lengths; their second token's remainder is the label."""
    bits = np.random.PCG64(100 + step % 2)
    numbers = bits.random_raw(ROWS * (LENGTH + 1)).reshape(ROWS, LENGTH + 1) >> 40
    lengths = (2 + numbers[:, -1] % (LENGTH - 1)).astype(np.int32)
    tokens = (5 + numbers[:, :-1] % 50).astype(np.int32)
    tokens = np.where(np.arange(LENGTH) < lengths[:, None], tokens, 0)
    return {"tokens": tokens, "lengths": lengths, "label": tokens[:, 1] % CLASSES}


def torch_losses(weight_decay: float) -> list[float]:
    """The loss of every step, before its update."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    net = BertForSequenceClassification(BertConfig(**SETTINGS, num_labels=CLASSES, **none)).double().train()
    parameters = dict(net.named_parameters())
    drawn = weights({name: tuple(x.shape) for name, x in parameters.items()})
    with torch.no_grad():
        for name, x in parameters.items():
            x.copy_(torch.tensor(drawn[name]))
    kept = ("bias", "LayerNorm.weight")
    groups = [
        {"params": [x for n, x in parameters.items() if n.endswith(kept)], "weight_decay": 0.0},
        {"params": [x for n, x in parameters.items() if not n.endswith(kept)], "weight_decay": weight_decay},
    ]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.999), eps=1e-8)
    # Theirs begins with a step at rate 0, which ours leaves out: one step more, and the first skipped.
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP + 1, STEPS + 1)
    schedule.step()
    losses = []
    for step in range(STEPS):
        given = {name: torch.tensor(x, dtype=torch.int64) for name, x in batch(step).items()}
        mask = (torch.arange(LENGTH) < given["lengths"][:, None]).long()
        out = net(given["tokens"], attention_mask=mask, labels=given["label"])
        optimizer.zero_grad()
        out.loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        losses.append(out.loss.item())
    return losses


def main() -> None:
    found = {str(decay): torch_losses(decay) for decay in DECAYS}
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{FILE}: {FILE.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
