"""A run and a generation with the gate around them (tests/hostile/gate.py): no network, no unpickling, no
process, no shell; and nothing of the environment in what is kept."""

import os
from pathlib import Path

from hostile.gate import gate

import train
from zoo import recipes
from zoo.__main__ import main
from zoo.cli import leaves

TINY = (
    "--data.tokenizer char --data.length 16 --data.batch-size 8 --model.num-layers 1 --model.num-heads 2 "
    "--model.d-model 16 --model.max-length 16 --schedule.warmup-steps 1 --steps 2 --sample-tokens 2"
).split()
# A pair of sockets within this process is what asyncio wakes itself with: made, and connected to nobody.
CLOSED = ("socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostby", "socket.getnameinfo")
CLOSED += (
    "socket.send",
    "urllib.",
    "http.",
    "ftplib.",
    "smtplib.",
    "pickle.find_class",
    "os.system",
    "os.exec",
)
CLOSED += ("os.posix_spawn", "os.spawn", "pty.spawn", "subprocess.Popen", "ctypes.dlopen")
SECRET = "zoo-secret-canary"
NAMES = ("password", "secret", "credential", "api_key", "access_token", "auth")


def test_a_run_and_its_texts_need_no_network_and_keep_no_secrets(tmp_path, monkeypatch, capsys):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, SECRET)
    (tmp_path / "a.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 40)
    argv = ["--data.path", str(tmp_path / "a.txt"), "--runs", str(tmp_path), "--name", "run", *TINY]
    with gate(Path("/"), Path("/")) as events:
        assert train.guarded(argv) == 0
        assert main(["generate", str(tmp_path / "run"), "the", "--tokens", "2"]) == 0
    assert not [event for event in events if event.startswith(CLOSED)]
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(kept) > 5 and not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_no_sockets_are_left_open_by_libraries():
    """Of code that is not Python's no event tells, but a socket is a file that is open."""
    links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if is_link(fd)]
    assert not [link for link in links if link.startswith("socket:")]


def is_link(descriptor: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{descriptor}")


def test_no_setting_is_a_secret():
    """A recipe is written down whole, beside every checkpoint."""
    fields = {path for recipe in recipes.CONFIGS.values() for path in leaves(recipe)}
    assert fields and not [path for path in fields if any(name in path for name in NAMES)]
