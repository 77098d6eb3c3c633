"""The shared layers against NumPy, the standard library's erf and closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit

from zoo.layers import (
    ACTIVATIONS,
    Embed,
    LayerNorm,
    Linear,
    dropout,
    layer_norm,
    lookup,
    matmul,
    parse,
)
from zoo.lettered import specs
from zoo.rotary import rotary_frequencies, rotate

DIMS = {"B": 2, "T": 3, "D": 6, "E": 10, "H": 2, "K": 4, "F": 5, "V": 7, "C": 3}


def normal(letters, seed=0):
    return np.random.default_rng(seed).standard_normal([DIMS[letter] for letter in letters])


# --- Linear ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "equation", ["BTD,DHK->BTHK", "BTHK,HKD->BTD", "BTD,DF->BTF", "BD,DC->BC", "BTHK,KE->BTHE", "D,DE->E"]
)
def test_linear_computes_its_equation(equation):
    with jax.enable_x64(True):  # float64 on both sides: only the order of the sums differs
        x_letters, w_letters, new = *equation.split("->")[0].split(","), parse(equation)[2]
        x, w, b = normal(x_letters), normal(w_letters, seed=1), normal(new, seed=2)
        y = Linear(equation, DIMS).apply({"params": {"w": w, "b": b}}, x)
        assert y.dtype == jnp.float64
        np.testing.assert_allclose(y, np.einsum(equation, x, w) + b, rtol=1e-12, atol=1e-12)
        y = Linear(equation, DIMS, bias=False).apply({"params": {"w": w}}, x)
        np.testing.assert_allclose(y, np.einsum(equation, x, w), rtol=1e-12, atol=1e-12)


def test_linear_declares_its_kernel_with_the_summed_letters_first():
    boxed = jax.eval_shape(Linear("BTHK,HKD->BTD", DIMS).init, jax.random.key(0), normal("BTHK"))["params"]
    tree = specs(boxed)
    assert (tree["w"].letters, tree["w"].shape, tree["w"].contracted) == ("HKD", (2, 4, 6), 2)
    assert (tree["b"].letters, tree["b"].shape, tree["b"].contracted) == ("D", (6,), 0)


@pytest.mark.parametrize(
    "equation",
    [
        "BTD,HKD->BTHK",  # the kernel's summed letters do not come first
        "BDT,DF->BTF",  # the input's do not come last
        "BTHK,KHD->BTD",  # the two sides order them differently
        "BTD,DHK->BTKH",  # the result is not kept letters, then new ones
        "BTD,DHK->HKBT",
        "BDT,DF->BDTF",  # a letter of both sides is kept
        "BTD,FD->BTFD",
        "BTD,DF->BTD",  # a letter that is summed and kept
    ],
)
def test_an_equation_of_another_form_is_refused_by_name(equation):
    with pytest.raises(ValueError, match=f"^equation '{equation}' [^\n]*$"):
        parse(equation)


def test_linear_casts_its_weights_to_the_input():
    x = jnp.ones((2, 6), jnp.bfloat16)
    params = {"w": np.ones((6, 3), np.float32), "b": np.ones(3, np.float32)}
    assert Linear("BD,DC->BC", DIMS).apply({"params": params}, x).dtype == jnp.bfloat16


def test_matmul_equals_einsum_over_one_and_two_letters():
    with jax.enable_x64(True):
        x, w = normal("BTHK"), normal("HKD", seed=1)
        np.testing.assert_allclose(matmul(x, w, 2), np.einsum("BTHK,HKD->BTD", x, w), atol=1e-12)
        w = normal("KDF", seed=2)
        np.testing.assert_allclose(matmul(x, w, 1), np.einsum("BTHK,KDF->BTHDF", x, w), atol=1e-12)


# --- norms and activations ------------------------------------------------------------------------


def test_layer_norm_equals_its_formula():
    x, scale, bias = 3 + 2 * normal("BTD"), normal("D", seed=1), normal("D", seed=2)
    want = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale
    with jax.enable_x64(True):
        np.testing.assert_allclose(layer_norm(x, scale, bias, 1e-5), want + bias, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer_norm(x, scale, None, 1e-5), want, rtol=1e-12, atol=1e-12)


def test_layer_norm_of_a_constant_is_its_bias():
    bias = normal("D").astype(np.float32)
    out = layer_norm(np.full((2, 3, 6), 7.0, np.float32), np.ones(6, np.float32), bias, 1e-5)
    np.testing.assert_array_equal(out, np.broadcast_to(bias, (2, 3, 6)))


def test_layer_norm_computes_in_float32_and_returns_the_dtype_that_came():
    # Far from zero a variance in bfloat16 would be noise: values are 0.5 apart at 100.
    x = jnp.asarray(100 + normal("BTD"), jnp.bfloat16)
    out = layer_norm(x, np.ones(6, np.float32), None, 1e-5)
    assert out.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    want = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(np.asarray(out, np.float64), want, rtol=2**-8)  # one rounding, at the end


def test_a_layer_norm_without_bias_has_only_a_scale():
    norm = LayerNorm(DIMS, bias=False)
    assert set(jax.eval_shape(norm.init, jax.random.key(0), jnp.ones((1, 1, 6)))["params"]) == {"scale"}


def test_activations_equal_their_closed_forms():
    x = np.linspace(-6, 6, 41)
    forms = {
        "gelu": [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x],
        "gelu_tanh": [0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x],
        "relu": [max(v, 0.0) for v in x],
        "silu": [v / (1 + math.exp(-v)) for v in x],
    }
    assert set(forms) == set(ACTIVATIONS)
    with jax.enable_x64(True):
        for name, want in forms.items():
            np.testing.assert_allclose(ACTIVATIONS[name](x), want, rtol=0, atol=1e-12, err_msg=name)


# --- tables ---------------------------------------------------------------------------------------


def test_lookup_takes_the_rows_of_a_table():
    table, ids = normal("VD"), np.asarray([[0, 6, 3], [3, 3, 1]])
    np.testing.assert_array_equal(lookup(jnp.asarray(table), ids, "V"), jnp.asarray(table)[ids])


def test_an_embedding_gives_the_activations_dtype():
    embed, ids = Embed("V", DIMS), np.asarray([[0, 6]])
    table = np.zeros((128, 6), np.float32)
    table[:7] = normal("VD")
    out = embed.apply({"params": {"table": table}}, ids, "bfloat16")
    assert out.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out, table[ids].astype(jnp.bfloat16))


def attend(table, x):
    return Embed("V", DIMS).apply({"params": {"table": table}}, x, 7, method="attend")


def test_attend_is_the_product_with_every_word():
    with jax.enable_x64(True):
        table, x = np.zeros((128, 6)), normal("BTD", seed=1)
        table[:7] = normal("VD")
        out = attend(table, x)
        assert out.shape == (2, 3, 128) and out.dtype == jnp.float64
        np.testing.assert_allclose(out[..., :7], np.einsum("BTD,VD->BTV", x, table[:7]), atol=1e-12)
        np.testing.assert_array_equal(out[..., 7:], np.finfo(np.float64).min)
        np.testing.assert_allclose(attend(table, x[1, 2])[:7], table[:7] @ x[1, 2], atol=1e-12)


def test_attend_accumulates_bfloat16_in_float32():
    # 256 + 1 is no bfloat16: rounded to one it would be 256 or 258.
    table = np.zeros((128, 6), np.float32)
    table[0, :2] = 256, 1
    out = attend(table, jnp.ones((1, 1, 6), jnp.bfloat16))
    assert out.dtype == jnp.float32 and out[0, 0, 0] == 257


# --- rotary positions -----------------------------------------------------------------------------


def test_rotation_multiplies_complex_numbers():
    with jax.enable_x64(True):
        x, positions = normal("BTHK"), np.asarray([[0, 5, 2], [7, 1, 8_000]])
        got = rotate(x, positions, rotary_frequencies(DIMS["K"], 100.0, np.float64))
    frequencies = np.asarray([1.0, 0.1])  # 100^0, 100^(-2/4)
    turned = (x[..., :2] + 1j * x[..., 2:]) * np.exp(1j * positions[..., None, None] * frequencies)
    np.testing.assert_allclose(got, np.concatenate([turned.real, turned.imag], -1), rtol=0, atol=1e-11)


def test_scores_of_rotated_heads_depend_on_the_distance_alone():
    q, k = normal("BTHK").astype(np.float32), normal("BTHK", seed=1).astype(np.float32)
    frequencies = rotary_frequencies(DIMS["K"], 50.0, np.float32)

    def score(at_query, at_key):
        places = (np.full((2, 3), at) for at in (at_query, at_key))
        return sum(
            np.prod([rotate(x, at, frequencies) for x, at in zip((q, k), places, strict=True)], axis=0).T
        )

    np.testing.assert_allclose(score(3, 8), score(13, 18), atol=1e-5)
    assert np.abs(score(3, 8) - score(3, 9)).max() > 0.1


def test_rotation_is_computed_in_float32_and_returns_the_dtype_that_came():
    x, positions = normal("BTHK").astype(jnp.bfloat16), np.asarray([[1000, 1001, 1003]])
    frequencies = rotary_frequencies(DIMS["K"], 50.0, jnp.float32)
    got = rotate(x, positions, frequencies)  # a bfloat16 position of 1,001 would be 1,000
    assert got.dtype == jnp.bfloat16
    want = rotate(x.astype(np.float32), positions, frequencies)
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


# --- dropout --------------------------------------------------------------------------------------


drop = jit(dropout, static_argnums=1)


@pytest.mark.parametrize("rate", [0.1, 0.9])
def test_dropout_keeps_its_share_and_the_mean(rate):
    n = 100_000
    out = np.asarray(drop(jnp.ones(n), rate, jax.random.key(0)))
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / (1 - rate))}
    # Kept entries are binomial, so their share is within four standard deviations of 1 - rate.
    assert abs(np.count_nonzero(out) / n - (1 - rate)) < 4 * math.sqrt(rate * (1 - rate) / n)


def test_dropout_without_a_key_or_a_rate_changes_nothing():
    x = jnp.arange(5.0)
    assert dropout(x, 0.5, None) is x and dropout(x, 0.0, jax.random.key(0)) is x


def test_dropout_keeps_bfloat16():
    assert drop(jnp.ones(8, jnp.bfloat16), 0.5, jax.random.key(0)).dtype == jnp.bfloat16


def test_first_values_are_a_normal_distribution_of_the_stated_spread():
    linear = Linear("BD,DE->BE", {"D": 200, "E": 300}, std=0.05)
    w = jit(linear.init)(jax.random.key(0), jnp.ones((1, 200)))["params"]["w"].value
    z = np.sort(np.asarray(w).ravel()) / 0.05
    want = np.asarray([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in z])
    # Kolmogorov-Smirnov at one in a thousand: 1.95 / sqrt(60,000).
    assert np.abs(want - (np.arange(z.size) + 0.5) / z.size).max() < 1.95 / math.sqrt(z.size)
