"""transformers on torch: GPT-2 and BERT trained, GPT-2's `generate`, and sentence-transformers' encode."""

from importlib import metadata
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks import rates
from benchmarks.peers import torch_run
from benchmarks.peers.torch_run import device, on_device
from benchmarks.workloads import Embedding, Generation
from zoo.models.bert import BERTConfig
from zoo.pretrained import bert as bert_names
from zoo.pretrained import gpt2 as gpt_names

TIED = ("lm_head", "attn.bias", "decoder", "position_ids", "pooler")


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "transformers")}


def make(work, folder: Path, how: str):
    torch_run.prepare()
    if isinstance(work, Generation):
        return GenerationRun(work, folder)
    if isinstance(work, Embedding):
        return EmbeddingRun(work, folder)
    trained = masked_lm if isinstance(work.recipe.model, BERTConfig) else causal_lm
    return trained(work, folder, how)


def causal_lm(work, folder: Path, how: str):
    """GPT2LMHeadModel with torch's fused attention."""
    config = transformers.GPT2Config(**gpt_names.config_to_hf(work.recipe.model))
    model = transformers.GPT2LMHeadModel._from_config(config, attn_implementation="sdpa")
    torch_run.load(model, folder, unused=TIED)
    model.tie_weights()
    forward = torch.compile(model) if how == "compiled" else model

    def loss_of(batch):
        tokens_BT = on_device(batch["tokens"], torch.long)
        logits = forward(tokens_BT[:, :-1]).logits
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), tokens_BT[:, 1:].flatten())

    return torch_run.TrainingRun(work, model, loss_of)


def masked_lm(work, folder: Path, how: str):
    """BertForMaskedLM, which computes the words of every position. What is timed reads one text a row,
    padded; first losses are those of zoo's rows, packed ones too, each text seeing itself alone."""
    config = transformers.BertConfig(**bert_names.config_to_hf(work.recipe.model), attn_implementation="sdpa")
    model = transformers.BertForMaskedLM(config)
    torch_run.load(model, folder, unused=TIED)
    model.tie_weights()
    forward = torch.compile(model) if how == "compiled" else model

    def loss_of(batch):
        segments_BT, labels_BT = batch["segments"], np.full(batch["tokens"].shape, -100)
        for row, count in enumerate(batch["weights"].sum(axis=1).astype(int)):
            labels_BT[row, batch["picked"][row, :count]] = batch["targets"][row, :count]
        inputs = {"attention_mask": on_device(segments_BT, torch.long)}
        if segments_BT.max() > 1:
            apart_B1TT = (segments_BT[:, :, None] != segments_BT[:, None, :])[:, None]
            inputs["attention_mask"] = on_device(np.where(apart_B1TT, np.float32(-1e30), np.float32(0)))
            inputs["position_ids"] = on_device(batch["positions"], torch.long)
        tokens, labels = on_device(batch["tokens"], torch.long), on_device(labels_BT, torch.long)
        return forward(input_ids=tokens, labels=labels, **inputs).loss

    return MaskedRun(work, model, loss_of)


class MaskedRun(torch_run.TrainingRun):
    """Turns are of padded rows, whatever zoo reads."""

    def turn(self, step: int, count: int) -> list[float]:
        self.work = self.work.beside
        return super().turn(step, count)


# --- inference ------------------------------------------------------------------------------------


class GenerationRun:
    """`generate`, greedy, with its cache."""

    def __init__(self, work: Generation, folder: Path):
        self.work = work
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**gpt_names.config_to_hf(work.model)))
        torch_run.load(model, folder, unused=TIED)
        self.model = model.to(device(), getattr(torch, work.dtype)).eval()
        self.prompts_BT = torch.tensor(work.prompts(), device=device())

    def generated(self, count: int) -> list[list[int]]:
        settings = {"do_sample": False, "max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        with torch.inference_mode():
            out_BT = self.model.generate(
                self.prompts_BT, attention_mask=torch.ones_like(self.prompts_BT), **settings
            )
        return out_BT[:, self.prompts_BT.shape[1] :].tolist()

    def start(self) -> dict:
        return {"compile_s": None}

    def first(self) -> dict[str, np.ndarray]:
        return {"tokens": np.array(self.generated(self.work.new))}

    def turn(self, step: int, count: int) -> list[float]:
        found = []
        for _ in range(count):
            whole, first = (rates.seconds(lambda n=n: self.generated(n)) for n in (self.work.new, 1))
            found.append(max(whole - first, 1e-6) / (self.work.new - 1))
        return found

    def facts(self) -> dict:
        return torch_run.memory()

    def matmul(self) -> float:
        return torch_run.matmul(self.work.dtype)


class EmbeddingRun:
    """sentence-transformers over the same encoder and vocabulary, with the faster of two batch sizes."""

    BATCHES = (32, 128)  # 32 is its default

    def __init__(self, work: Embedding, folder: Path):
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Normalize, Pooling, Transformer

        model = transformers.BertModel(transformers.BertConfig(**bert_names.config_to_hf(work.model)))
        tensors = {k: v for k, v in torch_run.weights(folder).items() if k.startswith("bert.")}
        missing, unexpected = model.load_state_dict(
            {name.removeprefix("bert."): x for name, x in tensors.items()}, strict=False
        )
        assert not unexpected and all("pooler" in name or "position_ids" in name for name in missing), missing
        saved = folder / "sentence-transformers"
        model.save_pretrained(saved)
        words = {word: number for number, word in enumerate(work.vocabulary)}
        transformers.BertTokenizer(vocab=words).save_pretrained(saved)
        pooling = Pooling(work.model.d_model, pooling_mode="mean")
        encoder = Transformer(str(saved), max_seq_length=work.model.max_length)
        self.model = SentenceTransformer(modules=[encoder, pooling, Normalize()], device=device().type)
        self.texts = work.texts()

    def vectors(self, batch_size: int) -> np.ndarray:
        return self.model.encode(self.texts, batch_size=batch_size, show_progress_bar=False)

    def start(self) -> dict:
        took = {size: rates.seconds(lambda size=size: self.vectors(size)) for size in self.BATCHES}
        self.batch_size = min(took, key=lambda size: took[size])
        return {"compile_s": None}

    def first(self) -> dict[str, np.ndarray]:
        return {"vectors": self.vectors(self.batch_size)}

    def turn(self, step: int, count: int) -> list[float]:
        return [rates.seconds(lambda: self.vectors(self.batch_size)) for _ in range(count)]

    def facts(self) -> dict:
        return torch_run.memory()

    def matmul(self) -> float:
        return torch_run.matmul("float32")
