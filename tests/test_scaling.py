"""What grows as theory says: a step's cost with the model, a text's with its bytes."""

import functools

import numpy as np
import pytest

from benchmarks import growth
from benchmarks.scaling import BASE, Line, costs_of, markdown
from zoo.data import tokens

SMALL = BASE | {"depth": 2, "width": 32, "length": 16, "batch": 4, "vocabulary": 128}
AXES = {"depth": (2, 3, 4), "batch": (4, 6, 8), "devices": (1, 2)}


@functools.cache
def cost(depth: int, batch: int, devices: int) -> dict[str, float]:
    return costs_of(SMALL | {"depth": depth, "batch": batch, "devices": devices})


def line(axis: str, name: str) -> Line:
    """One cost along an axis; all axes share their first point."""
    firsts = {axis: points[0] for axis, points in AXES.items()}
    values = tuple(cost(**firsts | {axis: point})[name] for point in AXES[axis])
    return Line(axis, name, AXES[axis], values)


@pytest.mark.parametrize("axis", ("depth", "batch"))
def test_flops_are_a_straight_line(axis):
    found = line(axis, "flops")
    first, middle, last = found.values
    assert last - middle == middle - first > 0
    assert found.holds and found.degree == 1


def test_flops_are_the_closed_form():
    positions = SMALL["batch"] * SMALL["length"]
    D, T, V = SMALL["width"], SMALL["length"], SMALL["vocabulary"]
    block = 12 * D * D + 2 * T * D  # six matmuls, scores and mixing
    expected = [6.0 * positions * (depth * block + V * D) for depth in AXES["depth"]]
    np.testing.assert_allclose(line("depth", "flops").values, expected, rtol=1e-12)


def test_a_program_of_scanned_layers_is_as_long_however_many_they_are():
    assert len(set(line("depth", "instructions").values)) == 1


def test_bytes_needed_at_once_are_a_straight_line_in_depth():
    assert line("depth", "peak_bytes").holds


def test_devices_share_the_arithmetic_and_send_the_gradients():
    alone, both = line("devices", "flops").values
    assert both == alone
    nothing, gradients = line("devices", "sent_bytes").values
    assert nothing == 0 < gradients


def test_what_lies_beside_the_line_is_marked():
    bent = Line("depth", "flops", (1, 2, 3), (1.0, 2.0, 4.0))
    assert not bent.holds and bent.apart > 0.05
    assert "| **no** |" in markdown([bent])
    assert Line("depth", "flops", (1, 2, 3), (1.0, 2.0, 3.0)).holds
    assert Line("width", "flops", (1, 2, 3), (1.0, 4.0, 9.0)).holds


def test_a_text_is_encoded_once_and_not_again(monkeypatch):
    encoded, encode = [], tokens.encoded

    def counted(document, tokenizer):
        encoded.append(len(document.text))
        return encode(document, tokenizer)

    monkeypatch.setattr(tokens, "encoded", counted)
    for size in (1 << 14, 1 << 15):
        encoded.clear()
        growth.sizes_of(size)
        assert sum(encoded) == 3 * size  # of three cold starts; of three warm ones nothing
