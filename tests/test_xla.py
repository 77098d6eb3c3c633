"""XLA settings: the table holds only what the installed jaxlib accepts, and a user's own settings win."""

import os
import subprocess
import sys

import pytest

import train
from zoo import xla
from zoo.errors import ConfigError

PROBE = """
import jax
jax.devices()
print(jax.jit(lambda x: x @ x)(jax.numpy.ones((8, 8)))[0, 0])
"""
ENTRIES = [
    (platform, flag)
    for (version, platform), flags in [*xla.FLAGS.items(), *xla.DETERMINISTIC.items()]
    if version == xla.jaxlib_version()
    for flag in flags
]


@pytest.fixture
def table(monkeypatch):
    """A table for an invented jaxlib, and an environment without XLA_FLAGS."""
    monkeypatch.setattr(xla, "FLAGS", {("1.2.3", "cpu"): ("--xla_a=1", "--xla_b=")})
    monkeypatch.setattr(xla.metadata, "version", lambda name: "1.2.3+cuda")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def probe(flags: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("platform", "flag"), ENTRIES)
def test_jax_starts_with_every_entry_of_the_table(platform, flag):
    done = probe(flag)
    assert (done.returncode, done.stdout) == (0, "8.0\n"), done.stderr


def test_an_unknown_flag_would_abort_the_process():
    assert probe("--xla_no_such_flag=1").returncode != 0  # or the probe above proves nothing


def test_the_flags_of_this_version_and_platform_are_added_and_reported(table):
    assert xla.apply() == ["--xla_a=1", "--xla_b="]
    assert os.environ["XLA_FLAGS"] == "--xla_a=1 --xla_b="
    assert xla.apply() == []


def test_a_run_has_its_flags_before_it_looks_at_a_published_folder(monkeypatch):
    """Looking at one starts the devices, and a start without the flags computes other last digits than the
    same run does when it goes on, where its own folder says all."""
    order = []

    def refuse(*_):
        order.append("folder")
        raise ConfigError("enough")

    monkeypatch.setattr(train.xla, "apply", lambda **_: order.append("flags") or [])
    monkeypatch.setattr(train, "completed", refuse)
    assert train.main(["gpt2_finetune"]) == 2
    assert order == ["flags", "folder"]


def test_a_flag_that_the_user_has_set_is_left_alone(table, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_b=yes --xla_abc=2")
    assert xla.apply("cpu") == ["--xla_a=1"]
    assert os.environ["XLA_FLAGS"] == "--xla_b=yes --xla_abc=2 --xla_a=1"


def test_a_gpu_gets_what_makes_it_deterministic_and_others_need_nothing(table, monkeypatch):
    monkeypatch.setattr(xla, "DETERMINISTIC", {("1.2.3", "gpu"): ("--xla_gpu_c=1",)})
    assert xla.apply("cpu", deterministic=True) == ["--xla_a=1", "--xla_b="]
    assert xla.apply("tpu", deterministic=True) == []
    assert xla.apply("gpu") == []
    assert xla.apply("gpu", deterministic=True) == ["--xla_gpu_c=1"]
    monkeypatch.setattr(xla.metadata, "version", lambda name: "1.2.4")
    with pytest.raises(
        ConfigError, match=r"no flags are known for the GPUs of jaxlib 1\.2\.4, only for 1\.2\.3"
    ):
        xla.apply("gpu", deterministic=True)


def test_another_version_or_platform_gets_nothing(table, monkeypatch):
    assert xla.apply("gpu") == []
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    assert xla.apply() == []
    monkeypatch.setattr(xla.metadata, "version", lambda name: "1.2.4")
    assert xla.apply("cpu") == []
    assert "XLA_FLAGS" not in os.environ


def test_a_file_of_flags_is_left_alone(table, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "/etc/xla_flags")
    assert xla.apply() == []
    assert os.environ["XLA_FLAGS"] == "/etc/xla_flags"


def test_the_platform_is_guessed_from_the_installed_plugin(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    for installed, platform in (((), "cpu"), (("jax_cuda13_plugin",), "gpu"), (("libtpu",), "tpu")):
        monkeypatch.setattr(
            xla.importlib.util, "find_spec", lambda name, found=installed: name in found or None
        )
        assert xla.likely_platform() == platform


def test_importing_zoo_sets_nothing():
    program = """
import os
import zoo, zoo.xla
assert not [name for name in os.environ if name.startswith(("XLA_", "JAX_", "LIBTPU_"))], os.environ
"""
    clean = {name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPATH") if name in os.environ}
    subprocess.run([sys.executable, "-c", program], env=clean, check=True)
