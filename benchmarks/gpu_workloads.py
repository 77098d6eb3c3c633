"""What is measured on one GPU, by value: bfloat16 activations; and the same, tiny, to rehearse it."""

import dataclasses

from benchmarks.workloads import Generation, Training, Workload, bert, gpt, lm, recurrent
from zoo.models.bert import SIZES as BERT_SIZES
from zoo.models.bert import BERTConfig
from zoo.models.gpt import SIZES as GPT_SIZES
from zoo.models.gpt import GPTConfig


def _gpt2(size: str) -> GPTConfig:
    return dataclasses.replace(GPT_SIZES[size], dtype="bfloat16", layer_unroll=0, dropout_rate=0.0)


_LARGE = dataclasses.replace(BERT_SIZES["bert_large"], dtype="bfloat16")
_BAR = {"peers": ("torch.compile",), "checked": 5}  # eager torch is no bar on a GPU, and minutes are few
_LSTM = dataclasses.replace(lm("lstm", 2, 1500, 10_000), dtype="bfloat16")

# The first rows are worth most: where time runs out, the last ones are missing. Batches fill a card of 80 GB.
GPU: dict[str, Workload] = {
    "gpu_gpt2": gpt("GPT-2 124M, T 1,024, B 32, bf16", _gpt2("gpt2"), 32, 1024, **_BAR),
    "gpu_lstm_2x1500": recurrent("LSTM 2x1500, T 35, B 20, bf16", _LSTM, 20, 35, checked=5),
    "gpu_decode_1": Generation(
        "GPT-2 124M, 256 greedy tokens behind 128, batch 1, bf16", _gpt2("gpt2"), 1, prompt=128, new=256
    ),
    "gpu_bert_large": bert("BERT large, T 512, B 16, packed, bf16", _LARGE, 16, 512, "packed", checked=5),
    "gpu_gpt2_medium": gpt("GPT-2 355M, T 1,024, B 16, bf16", _gpt2("gpt2_medium"), 16, 1024, **_BAR),
    "gpu_gpt2_large": gpt("GPT-2 774M, T 1,024, B 8, bf16", _gpt2("gpt2_large"), 8, 1024, **_BAR),
    "gpu_lstm_2x1500_wide": recurrent("LSTM 2x1500, T 128, B 256, bf16", _LSTM, 256, 128, checked=5),
    "gpu_gpt2_xl": gpt("GPT-2 1.5B, T 1,024, B 4, bf16", _gpt2("gpt2_xl"), 4, 1024, **_BAR),
}

_TINY = GPTConfig(vocab_size=256, max_length=32, num_layers=2, num_heads=2, d_model=32, layer_unroll=0)
_TINY_BERT = BERTConfig(vocab_size=512, num_layers=2, num_heads=2, d_model=32)

REHEARSAL: dict[str, Workload] = {
    "tiny_gpt": gpt("a tiny GPT", _TINY, 4, 32, checked=3),
    "tiny_lstm": recurrent("a tiny LSTM", lm("lstm", 1, 32, 64), 4, 16, checked=3),
    "tiny_decode": Generation("a tiny GPT's tokens", dataclasses.replace(_TINY, dropout_rate=0.0), 2, 8, 16),
    "tiny_bert": bert("a tiny BERT, packed", _TINY_BERT, 4, 64, "packed", checked=3),
}

# Which attention the compiled program must have: cuDNN's wherever zoo/kernels chooses it on such a card.
ASSERTED = {name: "cuDNN" for name, work in GPU.items() if isinstance(work, Training) and "gpt2" in name}
