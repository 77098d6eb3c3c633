"""Which kernel computes attention and why, and the kernels beside the plain form of zoo/attention.py.

Splash runs in Pallas's interpreter, on the CPU; cuDNN's is lowered for CUDA without a device, and run only
where there is one. Tests that need the TPU's compiler are marked `plan`.
"""

import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import jit
from jax.sharding import PartitionSpec as P
from training import eight_devices, mesh_of

from zoo import kernels
from zoo.attention import All, Causal, Choice, Lengths, Sees, Segments, Window, attention
from zoo.kernels import Target, splash
from zoo.mesh import AXES, abstract_mesh
from zoo.reporter import Reporter

TPU, HOPPER, AMPERE = (
    Target("tpu", "TPU v5 lite"),
    Target("gpu", "NVIDIA H200", (9, 0)),
    Target("gpu", "A100", (8, 0)),
)
TURING, AMD, CPU = Target("gpu", "Tesla T4", (7, 5)), Target("gpu", "gfx942"), Target("cpu", "cpu")
IDS = np.ones((2, 256), np.int32)
PACKED, READ = Causal() & Segments(IDS), Lengths(np.asarray([256, 3]))
IS_LOCAL = np.asarray(False)


def chosen(sees, on, *, T=256, S=None, H=4, J=4, K=64, dtype="bfloat16", values=None, mesh=None, **asked):
    """str of the choice."""
    shape = jax.ShapeDtypeStruct
    asked = {"dropout_rate": 0.0, "cap": 0.0, "has_positions": False} | asked
    return str(
        kernels.choice(
            shape((2, T, H, K), dtype),
            shape((2, S or T, J, K), dtype),
            shape((2, S or T, J, K), values or dtype),
            sees,
            target=on,
            mesh=abstract_mesh(dict.fromkeys(AXES, 1) | (mesh or {})),
            **asked,
        )
    )


class Prefix(Sees):
    """A rule that no kernel has heard of."""


CHOICES = [
    # Accepted on a TPU, whatever is seen, in both dtypes.
    (Causal(), TPU, {}, "splash: TPU, causal"),
    (Causal(), TPU, {"dtype": "float32"}, "splash: TPU, causal"),
    (All(), TPU, {"T": 200}, "splash: TPU, both sides"),
    (PACKED, TPU, {}, "splash: TPU, causal, packed documents"),
    (READ, TPU, {}, "splash: TPU, both sides, lengths"),
    (Window(9), TPU, {"cap": 50.0}, "splash: TPU, both sides, a window of 9"),
    (Causal() & Window(9) & Window(7), TPU, {}, "splash: TPU, causal, a window of 7"),
    (Causal(), TPU, {"J": 1}, "splash: TPU, causal"),
    (Causal(), TPU, {"J": 2, "mesh": {"tensor": 2, "data": 2}}, "splash: TPU, causal"),
    (Causal(), TPU, {"mesh": {"tensor": 2, "context": 2}}, "splash: TPU, causal"),
    (PACKED & READ & Window(9), TPU, {}, "splash: TPU, causal, a window of 9, packed documents, lengths"),
    (
        PACKED & Choice(IS_LOCAL, Window(9), All()),
        TPU,
        {},
        "splash: TPU, causal, a window of 9, packed documents or causal, packed documents",
    ),
    (Causal() & Choice(IS_LOCAL, Window(0), All()), TPU, {}, "splash: TPU, causal"),
    (Window(0), TPU, {}, "splash: TPU, nothing is seen"),
    # Accepted on an NVIDIA GPU.
    (Causal(), HOPPER, {}, "cuDNN: GPU, causal"),
    (Causal(), AMPERE, {"dtype": "float16", "K": 128, "T": 7}, "cuDNN: GPU, causal"),
    (All(), HOPPER, {"K": 256}, "cuDNN: GPU, both sides"),
    (READ, HOPPER, {}, "cuDNN: GPU, both sides, lengths"),
    (Causal() & READ, HOPPER, {}, "cuDNN: GPU, causal, lengths"),
    (Causal() & Window(9), HOPPER, {"J": 2}, "cuDNN: GPU, causal, a window of 9"),
    (
        Causal() & Choice(IS_LOCAL, Window(9), All()),
        HOPPER,
        {},
        "cuDNN: GPU, causal, a window of 9 or causal",
    ),
    # Refused wherever it is.
    (Causal(), None, {}, "XLA: no mesh says on which devices; jax.set_mesh does"),
    (Causal(), CPU, {}, "XLA: CPU, which has no kernel of its own"),
    (Causal(), AMD, {}, "XLA: GPU, which has no kernel of its own"),
    *(
        (sees, on, asked, f"XLA: {reason}")
        for on, kernel in ((TPU, "splash"), (HOPPER, "cuDNN"))
        for sees, asked, reason in (
            (
                Causal(),
                {"dropout_rate": 0.1},
                f"dropout of attention weights, which {kernel} has not; the model's dropout_rate=0 uses it, "
                "without dropout anywhere",
            ),
            (
                Causal(),
                {"has_positions": True},
                "a cache says where queries and keys stand, and kernels count from 0",
            ),
            (Causal(), {"S": 300}, f"256 queries and 300 keys, {kernel} is for as many of both"),
            (
                Causal(),
                {"values": "float32"},
                "queries, keys and values of different dtypes, bfloat16, float32",
            ),
            (
                Causal(),
                {"J": 1, "mesh": {"tensor": 2}},
                "4 heads and 1 key heads do not both divide over mesh tensor=2; sizes that divide "
                f"both use {kernel}",
            ),
            (
                Causal(),
                {"J": 2, "mesh": {"tensor": 2, "context": 2}},
                "4 heads and 2 key heads do not both divide over mesh tensor=2 context=2; sizes that divide "
                f"both use {kernel}",
            ),
            (Causal() & Prefix(), {}, "kernels do not know what Prefix sees"),
            (PACKED & Segments(IDS), {}, "kernels take documents and lengths once, and here are several"),
            (READ & READ, {}, "kernels take documents and lengths once, and here are several"),
            (
                Choice(IS_LOCAL, All(), Causal()) & Choice(IS_LOCAL, Window(9), All()),
                {},
                "kernels do not know what Choice sees",
            ),
        )
    ),
    # Refused on a TPU alone.
    (Causal(), TPU, {"dtype": "float16"}, "XLA: float16 activations, splash is for bfloat16 and float32"),
    (Causal(), TPU, {"T": 127}, "XLA: rows of 127, shorter than splash's block of 128"),
    (Causal(), TPU, {"K": 520}, "XLA: heads 520 wide, splash was compiled up to 512"),
    # Refused on an NVIDIA GPU alone.
    (
        Causal(),
        HOPPER,
        {"dtype": "float32"},
        "XLA: float32 activations, cuDNN's is for bfloat16; model.dtype=bfloat16 uses it",
    ),
    (Causal(), TURING, {}, "XLA: Tesla T4, of compute capability 7.5, cuDNN's kernel needs 8.0"),
    (Causal(), AMPERE, {"K": 256}, "XLA: heads 256 wide, cuDNN's is for multiples of 8 up to 128"),
    (Causal(), HOPPER, {"K": 20}, "XLA: heads 20 wide, cuDNN's is for multiples of 8 up to 256"),
    (Causal(), HOPPER, {"cap": 50.0}, "XLA: scores capped at 50, which cuDNN would leave out"),
    (PACKED, HOPPER, {}, "XLA: packed documents, which cuDNN would mix; another data.layout uses it"),
    (Window(9), HOPPER, {}, "XLA: a window on both sides, which cuDNN has not"),
    (
        Causal() & Window(9) & READ,
        HOPPER,
        {},
        "XLA: a window and lengths at once, which cuDNN was not seen to do",
    ),
    (Choice(IS_LOCAL, Window(9), All()), HOPPER, {}, "XLA: a window on both sides, which cuDNN has not"),
]


@pytest.mark.parametrize(("sees", "on", "asked", "says"), CHOICES, ids=lambda value: "")
def test_the_choice_of_a_kernel_and_its_reason(sees, on, asked, says):
    assert chosen(sees, on, **asked) == says


# --- splash beside the plain form -----------------------------------------------------------------

T, H, J, K = 200, 4, 2, 16  # an odd length: filled up to two blocks of 128
random = np.random.default_rng(0)
DOCUMENTS = np.sort(random.integers(1, 5, (2, T)), axis=1)
DOCUMENTS[0, 150:], DOCUMENTS[1, :9] = 0, 0
FEW = np.asarray([130, 0])

RULES = {
    "all": All(),
    "causal": Causal(),
    "window": Window(20),
    "causal window": Causal() & Window(20),
    "causal segments": Causal() & Segments(DOCUMENTS),
    "segments": Segments(DOCUMENTS),
    "lengths": Lengths(FEW),
    "causal lengths": Causal() & Lengths(FEW),
    "window lengths": Window(20) & Lengths(FEW),
    "causal window segments lengths": Causal() & Window(20) & Segments(DOCUMENTS) & Lengths(FEW),
    "choice of the first": Choice(np.asarray(True), Window(20), All()) & Segments(DOCUMENTS),
    "choice of the second": Causal() & Choice(np.asarray(False), Window(20), All()),
    "a choice that is never taken": Causal() & Choice(np.asarray(False), Window(0), All()),
    "nothing": Window(0),
}
interpreted = functools.partial(splash.attention, interpret=True)


def arrays(dtype="float32", *, T=T, key_heads=J):
    random = np.random.default_rng(1)
    shapes = [(2, T, heads, K) for heads in (H, key_heads, key_heads, H)]
    return [jnp.asarray(random.standard_normal(shape), dtype) for shape in shapes]


def with_gradients(function):
    """(result, gradients to q, k and v) for a cotangent that is the last argument."""

    def run(q, k, v, out_bar, sees):
        out, back = jax.vjp(lambda *qkv: function(*qkv, sees), q, k, v)
        return out, *back(out_bar)

    return jit(run)


def by_splash(q, k, v, sees, **more):
    more = {"scale": 0.25, "cap": 0.0} | more
    return kernels.on_one_device(interpreted, q, k, v, sees, **more)


def plain(q, k, v, sees, **more):
    return attention(q, k, v, sees, **({"scale": 0.25} | more))


def close(got, want, tolerance):
    for name, one, other in zip(("out", "dq", "dk", "dv"), got, want, strict=False):
        one, other = (np.asarray(x, np.float64) for x in (one, other))
        largest = np.abs(other).max()
        assert np.abs(one - other).max() <= tolerance * max(largest, 1), name


def hidden(sees):
    """[B, T], who sees nothing."""
    place_BT = jnp.arange(T)[None]
    return ~np.asarray(jnp.broadcast_to(sees.mask_BTS(place_BT, place_BT).any(-1), (2, T)))


@pytest.mark.parametrize("rule", RULES)
def test_splash_is_the_plain_form(rule):
    sees = RULES[rule]
    got, want = (jit(form)(*arrays()[:3], sees) for form in (by_splash, plain))
    close([got], [want], 1e-5)  # sums over 200 keys in another order: a few roundings of 6e-8
    np.testing.assert_array_equal(np.asarray(got)[hidden(sees)], 0)


@pytest.mark.parametrize("rule", ["all", "causal window segments lengths", "choice of the first"])
def test_gradients_through_splash_are_those_of_the_plain_form(rule, monkeypatch):
    """In blocks of 128: the window and the causal rule leave some out."""
    monkeypatch.setattr(splash, "LARGEST", 128)
    sees = RULES[rule]
    got, want = (with_gradients(form)(*arrays(), sees) for form in (by_splash, plain))
    close(got, want, 1e-5)
    np.testing.assert_array_equal(np.asarray(got[1])[hidden(sees)], 0)


def test_splash_shares_a_key_head_and_caps_scores_as_the_plain_form_does():
    inputs, sees = arrays(key_heads=1), RULES["causal segments"]
    forms = (functools.partial(form, scale=3.0, cap=2.0) for form in (by_splash, plain))
    got, want = (with_gradients(form)(*inputs, sees) for form in forms)
    close(got, want, 1e-5)


def test_splash_in_bfloat16_is_the_plain_form_to_its_roundings():
    """Both round queries, result and gradients to 8 bits, the plain form its weights too: the two are as far
    apart as each is from float32, a few times 2^-9 of the largest."""
    exact = with_gradients(plain)(*(x.astype(jnp.float32) for x in arrays("bfloat16")), Causal())
    got, want = (with_gradients(form)(*arrays("bfloat16"), Causal()) for form in (by_splash, plain))
    assert all(x.dtype == jnp.bfloat16 for x in got)
    close(got, want, 4 * 2**-8)
    close(got, exact, 4 * 2**-8)


@pytest.mark.parametrize(
    ("length", "sees"), [(128, All()), (384, Causal()), (513, All()), (640, Window(300))]
)
def test_no_length_of_a_row_shows(length, sees):
    got, want = (jit(form)(*arrays(T=length)[:3], sees) for form in (by_splash, plain))
    close([got], [want], 1e-5)


# --- where it runs --------------------------------------------------------------------------------


@pytest.fixture
def as_on_a_tpu(monkeypatch):
    """attention() chooses as on a TPU, and what it chooses runs in the interpreter."""
    monkeypatch.setattr(kernels, "target", lambda: TPU)
    monkeypatch.setitem(kernels.KERNELS, kernels.SPLASH, interpreted)


def layers(q, k, v, sees):
    """Three layers of attention, scanned and recomputed."""

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def layer(x, _):
        return x + attention(x, k, v, sees, scale=0.25), None

    return jax.lax.scan(layer, q, length=3)[0]


def traced(function):
    """A function that no cache knows, so that it is traced anew."""
    return with_gradients(lambda *arguments: function(*arguments))


@eight_devices
@pytest.mark.parametrize(
    ("sizes", "context", "rule"),
    [
        ((1, 1, 1), 1, "causal segments"),
        ((1, 2, 2), 1, "choice of the first"),
        ((4, 1, 2), 1, "lengths"),
        ((2, 1, 1), 2, "causal segments"),
    ],
)
def test_every_device_computes_its_rows_and_heads_in_a_scan(as_on_a_tpu, sizes, context, rule):
    """Of (4, 1, 2) the two rows do not divide, and every device has both; where positions are spread over
    context, heads take their place."""
    choices = []
    with jax.set_mesh(mesh_of(sizes, context=context)):
        with kernels.noted(choices.append):
            got = traced(layers)(*arrays(), RULES[rule])
        with kernels.only_xla():
            want = traced(layers)(*arrays(), RULES[rule])
    assert {choice.kernel for choice in choices} == {kernels.SPLASH}
    close(got, want, 1e-5)


@eight_devices
def test_no_row_and_no_head_travels(as_on_a_tpu):
    mesh = mesh_of((2, 2, 2))
    row = jax.ShapeDtypeStruct((8, T, H, K), jnp.float32)
    with jax.set_mesh(mesh):
        placed = jax.sharding.NamedSharding(mesh, P(("data", "fsdp"), None, "tensor"))
        inputs = [jax.ShapeDtypeStruct(row.shape, row.dtype, sharding=placed)] * 3
        text = jit(lambda q, k, v: attention(q, k, v, Causal())).lower(*inputs).compile().as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in text


@eight_devices
def test_within_a_program_that_spreads_one_axis_by_itself_the_kernel_spreads_the_others(as_on_a_tpu):
    def by_hand(q, k, v, sees):
        spec = P("data")
        seen = jax.tree.map(lambda _: spec, sees)
        inner = jax.shard_map(
            functools.partial(attention, scale=0.25),
            in_specs=(spec, spec, spec, seen),
            out_specs=spec,
            axis_names={"data"},
            check_vma=False,
        )
        return inner(q, k, v, sees)

    with jax.set_mesh(mesh_of((2, 1, 2))):
        got = traced(by_hand)(*arrays(), RULES["causal segments"])
        with kernels.only_xla():
            want = traced(plain)(*arrays(), RULES["causal segments"])
    close(got, want, 1e-5)


def test_dropout_a_cache_and_no_mesh_take_the_plain_form(as_on_a_tpu, monkeypatch):
    q, k, v, _ = arrays()
    choices = []
    with kernels.noted(choices.append):
        attention(q, k, v, Causal(), dropout_rate=0.1, dropout_key=jax.random.key(0))
        attention(q, k, v, Causal(), query_BT=jnp.arange(T)[None])
        monkeypatch.undo()
        attention(q, k, v, Causal())
    reasons = ["dropout of attention weights", "a cache says", "no mesh says"]
    for choice, reason in zip(choices, reasons, strict=True):
        assert choice.kernel == kernels.XLA and choice.reason.startswith(reason)


def test_dropout_that_evaluation_leaves_out_is_none(as_on_a_tpu):
    q, k, v, _ = arrays()
    choices = []
    with kernels.noted(choices.append):
        attention(q, k, v, Causal(), dropout_rate=0.1, dropout_key=None)
    assert [choice.kernel for choice in choices] == [kernels.SPLASH]


def test_the_devices_of_the_mesh_are_the_target():
    assert kernels.target() is None
    with jax.set_mesh(mesh_of()):
        assert kernels.target() == Target("cpu", "cpu")
    pod = jax.sharding.AbstractDevice("TPU v5 lite", 1, "tpu")
    mesh = jax.sharding.AbstractMesh(
        (2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), abstract_device=pod
    )
    with jax.sharding.use_abstract_mesh(mesh):
        assert kernels.target() == TPU


def test_a_run_says_once_which_kernel_it_takes(as_on_a_tpu):
    lines = []
    run = types.SimpleNamespace(bar=types.SimpleNamespace(note=lines.append))
    step = Reporter.telling_kernels(run, jit(lambda *a: attention(*a, PACKED) + attention(*a, Causal())))
    q, k, v, _ = arrays(T=256)
    assert not lines
    for _ in range(2):
        step(q, k, v)
    assert lines == ["attention splash: TPU, causal, packed documents", "attention splash: TPU, causal"]


# --- cuDNN ----------------------------------------------------------------------------------------

CUDNN_RULES = {  # and what cuDNN calls them
    "all": "NO_MASK",
    "causal": "CAUSAL",
    "causal window": "CAUSAL",
    "lengths": "PADDING",
    "causal lengths": "PADDING_CAUSAL",
    "choice of the second": "CAUSAL",
    "a choice that is never taken": "CAUSAL",
}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """attention() chooses as on a Hopper GPU, and JAX finds a cuDNN."""
    monkeypatch.setattr(kernels, "target", lambda: HOPPER)
    found = jax.nn.dot_product_attention.__globals__["cudnn_dot_product_attention"].__globals__
    monkeypatch.setitem(found, "check_cudnn_version", lambda: 91000)


@eight_devices
@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize("rule", CUDNN_RULES)
def test_cudnns_kernel_stands_in_the_program_for_cuda(as_on_a_gpu, sizes, rule):
    """Forward and back, on each device its part: nothing is left for a partitioner that is not there."""
    with jax.set_mesh(mesh_of(sizes)):
        traced = with_gradients(lambda *a: plain(*a)).trace(*arrays("bfloat16"), RULES[rule])
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax(" in text
    assert "__cudnn$fmhaSoftmaxBackward(" in text
    assert "CustomSPMDPartitioning" not in text
    rows, heads = 2 // sizes[0], H // sizes[2]
    scores = ", ".join(rf"\22{size}\22" for size in (rows, heads, T, T))
    assert rf"\22dimensions\22: [{scores}]" in text
    assert set(re.findall(r"mask_type\\22: \\22(\w+)", text)) == {CUDNN_RULES[rule]}
    assert r"\22fmha_scale\22: 0.25" in text
    assert (r"\22sliding_window_length\22: 20" in text) == (rule in ("causal window", "choice of the second"))
    assert f"{H // sizes[2]}x{T}x{T}x" not in text  # no scores


has_gpu = any(device.platform == "gpu" for device in jax.devices())


@pytest.mark.skipif(not has_gpu, reason="needs an NVIDIA GPU, of compute capability 8.0 or later")
@pytest.mark.parametrize("rule", CUDNN_RULES)
def test_cudnn_is_the_plain_form_forward_and_back(rule):
    """Both round to bfloat16 in other places: a few times 2^-9 of the largest."""
    sees = RULES[rule]
    with jax.set_mesh(mesh_of()):
        program = traced(plain).lower(*arrays("bfloat16"), sees).compile()
        assert "__cudnn$fmha" in program.as_text()
        got = program(*arrays("bfloat16"), sees)
        with kernels.only_xla():
            want = traced(plain)(*arrays("bfloat16"), sees)
    close(got, want, 4 * 2**-8)
    np.testing.assert_array_equal(np.asarray(got[0], np.float32)[hidden(sees)], 0)
