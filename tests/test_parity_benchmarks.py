"""The peers of the suite compute what zoo does, from zoo's weights: losses of first steps, outputs and
gradients, greedy tokens, vectors. All tiny, in one process, eager."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.parity
pytest.importorskip("torch")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[1]

COMPARE = """
import dataclasses, json, pathlib, tempfile
from benchmarks import measure, ours
from benchmarks.find import ALL
from benchmarks.kinds import Embedding, Stack, Training
from benchmarks.peers import huggingface, plain_torch, textbook_flax
from benchmarks.workloads import lm, recurrent
from zoo.models.bert import BERTConfig

PEERS = {"torch": plain_torch, "transformers": huggingface, "flax": textbook_flax}
tiny_gpt = ALL["tiny_gpt"]
config = dataclasses.replace(tiny_gpt.recipe.model, bias=False, activation="gelu")
works = {name: ALL[name] for name in ("tiny_gpt", "tiny_bert", "tiny_lstm", "tiny_decode")}
works["nanogpt"] = dataclasses.replace(
    tiny_gpt, recipe=dataclasses.replace(tiny_gpt.recipe, model=config), peers=("torch", "flax")
)
works["padded"] = works["tiny_bert"].beside
works["tiny_gru"] = recurrent("a tiny GRU", lm("gru", 2, 32, 64), 4, 16)
works |= {f"{cell}_stack": Stack("", cell, 2, 24, 10, 3) for cell in ("lstm", "gru")}
try:
    import sentence_transformers
    works["embed"] = Embedding("", BERTConfig(vocab_size=512, num_layers=2, num_heads=2, d_model=32), 50)
except ImportError:
    pass
for name, work in works.items():
    count = {"count": 3} if isinstance(work, Training) else {}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run = ours.make(work, folder, "zoo")
        run.start()
        first = run.first(**count)
        for peer in work.peers:
            if peer in PEERS:
                run = PEERS[peer].make(work, folder, "eager")
                run.start()
                apart = measure.distance(first, run.first(**count), work.dtype)
                print(json.dumps([name, peer, *apart, len(run.turn(3, 2))]), flush=True)
"""

EXPECTED = [
    ("tiny_gpt", "torch"),
    ("tiny_gpt", "transformers"),
    ("tiny_gpt", "flax"),
    ("tiny_bert", "transformers"),
]
EXPECTED += [
    ("tiny_lstm", "torch"),
    ("tiny_lstm", "flax"),
    ("tiny_decode", "transformers"),
    ("nanogpt", "torch"),
]
EXPECTED += [("nanogpt", "flax"), ("padded", "transformers"), ("tiny_gru", "torch")]
EXPECTED += [("lstm_stack", "torch"), ("gru_stack", "torch")]


@functools.cache
def compared() -> dict:
    """{(workload, peer): (how far apart, whether that is the same, steps in a turn)}."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {(name, peer): found for name, peer, *found in rows}


@pytest.mark.parametrize(("workload", "peer"), EXPECTED)
def test_a_peer_computes_what_zoo_does(workload, peer):
    apart, agrees, steps = compared()[workload, peer]
    assert agrees
    assert apart < 1e-5
    assert steps == 2


def test_sentence_transformers_has_the_same_vectors():
    pytest.importorskip("sentence_transformers")
    apart, agrees, _ = compared()["embed", "transformers"]
    assert agrees, apart
