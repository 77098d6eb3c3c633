"""What every model promises, whatever its family: these tests run over all of zoo.models.MODELS.

families.py makes the configurations and says which promises a family makes ("traits").
"""

import dataclasses
import functools
import math
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import (
    CASES,
    SEQUENCE,
    TINY,
    TRAITS,
    B,
    T,
    alternatives,
    any_loss,
    assert_close,
    features,
    inputs_of,
    jit,
    logits,
    loss_and_gradients,
    over,
    parameters,
    step,
    tokens,
    train_logits,
    train_loss,
)

import zoo.models
from zoo.lettered import stored_size
from zoo.mesh import AXES, MeshConfig, make_mesh
from zoo.models.pure import Model
from zoo.sharding import LETTERS, RULES, AxisType, placement, shardings


def devices_of(case):
    """Four devices; one where there are fewer, or a turned case, whose sizes need not divide."""
    sizes = (1, 1) if case.name.endswith("-turned") or jax.device_count() < 4 else (2, 2)
    return make_mesh(MeshConfig(data=1, fsdp=sizes[0], tensor=sizes[1]), jax.devices()[: sizes[0] * sizes[1]])


@functools.cache
def made(case):
    """A model's first values, on that mesh."""
    model = case.model()
    return jit(model.init, out_shardings=shardings(model.abstract(), devices_of(case)))(jax.random.key(0))


each_size = pytest.mark.parametrize("size", sorted(zoo.models.SIZES))


def named(tree):
    """[(name, leaf)] of a tree."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


# --- what a model declares ------------------------------------------------------------------------


@over()
def test_a_model_declares_which_tests_apply_to_it(case):
    assert case.traits and case.traits <= TRAITS


@over()
def test_abstract_parameters_are_those_that_init_makes(case):
    """And they lie on a mesh where the table says."""
    model = case.model()
    for (name, spec), array in zip(named(model.abstract()), jax.tree.leaves(made(case)), strict=True):
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype), name
        assert array.addressable_shards[0].data.size * ways(spec, devices_of(case)) == array.size, name


@over(field="dtype")
def test_parameters_are_float32_whatever_the_activations_are(case):
    with jax.enable_x64(True):
        for dtype in ("float32", "bfloat16", "float64"):
            specs = jax.tree.leaves(case.model(dtype=dtype).abstract())
            assert {str(spec.dtype) for spec in specs} == {"float32"}


@over(turned=False)
def test_init_leaves_the_padding_of_the_vocabulary_at_zero(case):
    model = case.model()
    params = made(case)
    for (name, spec), array in zip(named(model.abstract()), jax.tree.leaves(params), strict=True):
        entries = np.count_nonzero(array) - np.count_nonzero(spec.visible(array))
        assert entries == 0, name


@over()
def test_every_letter_is_known_and_has_the_size_that_the_config_says(case):
    dims = case.config.dims
    for name, spec in named(case.model().abstract()):
        assert set(spec.letters) <= set(LETTERS) and set(spec.letters) <= set(RULES), name
        for letter, visible, stored in zip(spec.letters, spec.visible_shape, spec.shape, strict=True):
            assert visible == dims.get(letter, visible), name  # layers of several widths are not in dims
            assert stored == stored_size(letter, visible), name


@over()
def test_the_closed_form_counts_the_parameters_that_init_makes(case):
    model = case.model()
    arrays = jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))
    padding = sum(spec.size for spec in jax.tree.leaves(model.abstract())) - sum(a.size for a in arrays)
    rows = stored_size("V", case.config.vocab_size) - case.config.vocab_size
    assert padding % rows == 0 and padding <= 0  # what is left out is whole rows of padding
    assert model.num_params() == case.config.num_params == sum(a.size for a in arrays) + padding


@each_size
def test_the_closed_form_counts_every_published_size(size):
    model = zoo.models.create(size)
    assert model.num_params() == model.config.num_params


@each_size
def test_abstract_init_of_a_published_size_takes_less_than_two_seconds(size):
    model = zoo.models.create(size)
    Model.abstract.cache_clear()
    start = time.process_time()  # not the clock on the wall: other tests may run at the same time
    model.abstract()
    assert time.process_time() - start < 2


# --- every field of a config is read --------------------------------------------------------------


def in_float64(aspect):
    """For dtype="float64", and for all others so that they compare."""

    @functools.wraps(aspect)
    def wider(model):
        with jax.enable_x64(True):
            return aspect(model)

    return wider


def text_of(program) -> str:
    constants = [np.asarray(constant).tolist() for constant in program.consts]
    return re.sub("0x[0-9a-f]+", "", f"{program}\n{constants}")  # no addresses of functions


@in_float64
def specs_of(model) -> str:
    return str(model.abstract())


@in_float64
def state_of(model) -> str:
    if not model.traits & {"causal", "recurrent"}:
        return ""
    return str(jax.eval_shape(lambda: model.initial_state(2, 8)))


@in_float64
def first_values_of(model) -> str:
    return text_of(jax.make_jaxpr(model.init)(jax.random.key(0)))


def traced(model, function) -> str:
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), model.abstract())
    return text_of(
        jax.make_jaxpr(functools.partial(function, model))(params, inputs_of(model, 1, 8), jax.random.key(0))
    )


@in_float64
def loss_of(model) -> str:
    return traced(model, any_loss)


@in_float64
def gradient_of(model) -> str:
    return traced(model, jax.grad(any_loss, argnums=1))


@in_float64
def takes_long_rows(model) -> bool:
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), model.abstract())
    try:
        jax.eval_shape(model.apply, params, inputs_of(model, 1, TINY["max_length"] + 1))
    except ValueError:
        return False
    return True


# Everything that a field can change, what is quickly computed first: most fields show there.
ASPECTS = (specs_of, state_of, first_values_of, takes_long_rows, loss_of, gradient_of)


@functools.cache
def aspect_of(case, aspect):
    return aspect(case.model())


def changes_something(case, model) -> bool:
    return any(aspect(model) != aspect_of(case, aspect) for aspect in ASPECTS)


EVERY_FIELD = [
    pytest.param(case, field, id=f"{case.name}-{field.name}")
    for case in CASES
    if not case.name.endswith("-turned")
    for field in dataclasses.fields(case.config)
]


@pytest.mark.parametrize("case, field", EVERY_FIELD)
def test_every_value_of_a_config_field_changes_something(case, field):
    for value in alternatives(case.config, field):
        assert changes_something(case, case.model(**{field.name: value})), f"{field.name}={value!r}"


@over("recurrent", "bidirectional", turned=False)
def test_a_field_that_nothing_reads_is_found(case):
    kind = type(case.config)
    wider = dataclasses.make_dataclass("Wider", [("unread", int, 1)], bases=(kind,), frozen=True)
    fields = {field.name: getattr(case.config, field.name) for field in dataclasses.fields(kind)}
    config = wider(**fields, unread=2)
    model = Model(config, dataclasses.replace(case.model().module, config=config))
    assert not changes_something(case, model)


# --- gradients ------------------------------------------------------------------------------------


@over(*SEQUENCE)
def test_gradient_reaches_every_parameter_and_no_padding_row(case):
    model = case.model()
    # Each word once or more, and each position: a row of a table gets its gradient where it is looked up.
    width = getattr(case.config, "max_length", T)
    rows = -(-case.config.vocab_size // width)
    row_tokens = np.arange(rows * width, dtype=np.int32).reshape(rows, width) % case.config.vocab_size
    params = parameters(model, padding=0.5)
    _, gradients = loss_and_gradients(model, params, {"tokens": row_tokens}, np.roll(row_tokens, -1))
    for (name, spec), gradient in zip(named(model.abstract()), jax.tree.leaves(gradients), strict=True):
        gradient = np.asarray(gradient)
        visible = spec.visible(gradient)
        assert np.isfinite(gradient).all(), name
        stacked = visible if spec.letters.startswith("N") else visible[None]
        for layer in stacked:
            assert np.any(layer), name
        if "V" in spec.letters:
            by_word = np.moveaxis(visible, spec.letters.index("V"), 0).reshape(case.config.vocab_size, -1)
            assert by_word.any(axis=1).all(), name
            assert np.count_nonzero(gradient) == np.count_nonzero(visible), name


# --- rows, padding, packing -----------------------------------------------------------------------


@over(*SEQUENCE)
def test_rows_of_a_batch_do_not_see_each_other(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    other = x.copy()
    other[1] = tokens(model, seed=2)[1]
    before, after = (np.asarray(logits(model, params, {"tokens": ids})) for ids in (x, other))
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])
    assert np.any(before[1] != after[1])


@over(*SEQUENCE, turned=False)
def test_the_order_of_a_batch_changes_nothing(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    order, straight = [2, 0, 1], np.asarray(logits(model, params, {"tokens": x}))
    assert_close(logits(model, params, {"tokens": x[order]}), straight[order])


@over(*SEQUENCE)
def test_padding_on_the_right_changes_nothing(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    alone = logits(model, params, {"tokens": x[:, :5]})
    segments = np.where(np.arange(T) < 5, 1, 0) * np.ones((B, 1), np.int32)
    for seed in (2, 3):
        padded = np.where(segments > 0, x, tokens(model, seed=seed))
        inputs = {"tokens": padded, "segments": segments, "positions": np.tile(np.arange(T), (B, 1))}
        assert_close(logits(model, params, inputs)[:, :5], alone)


@over(*SEQUENCE)
def test_packing_documents_into_a_row_changes_nothing(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    spans = [(0, 5), (5, 7), (7, 11)]  # of each row's documents; its last position is padding
    segments, positions = np.zeros((B, T), np.int32), np.zeros((B, T), np.int32)
    for index, (start, stop) in enumerate(spans, 1):
        segments[:, start:stop], positions[:, start:stop] = index, np.arange(stop - start)
    packed = logits(model, params, {"tokens": x, "segments": segments, "positions": positions})
    assert np.isfinite(packed).all()
    for start, stop in spans:
        alone = np.zeros((B, T), np.int32)
        alone[:, : stop - start] = x[:, start:stop]
        valid = np.where(np.arange(T) < stop - start, 1, 0) * np.ones((B, 1), np.int32)
        inputs = {"tokens": alone, "segments": valid, "positions": np.tile(np.arange(T), (B, 1))}
        assert_close(packed[:, start:stop], logits(model, params, inputs)[:, : stop - start])


# --- who sees whom --------------------------------------------------------------------------------


@over("causal")
def test_a_causal_model_cannot_see_the_future(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    before = np.asarray(logits(model, params, {"tokens": x}))
    for t in range(T):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % case.config.vocab_size
        after = np.asarray(logits(model, params, {"tokens": changed}))
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.all(np.any(after[:, t:] != before[:, t:], axis=-1))  # and it does see the past


@over("bidirectional")
def test_a_bidirectional_model_sees_both_sides(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    before = np.asarray(features(model, params, {"tokens": x}))
    for t in (0, T // 2, T - 1):
        changed = x.copy()
        changed[:, t] = (changed[:, t] + 1) % case.config.vocab_size
        after = np.asarray(features(model, params, {"tokens": changed}))
        assert np.all(np.any(after != before, axis=-1))


# --- how the layers are run changes nothing -------------------------------------------------------


def with_dropout(case, **changes):
    model = case.model(**changes)
    x = tokens(model)
    return loss_and_gradients(model, parameters(model), {"tokens": x}, np.roll(x, -1), jax.random.key(3))


def assert_same_loss_and_gradients(got, want):
    assert_close(got[0], want[0])
    for (name, one), other in zip(named(got[1]), jax.tree.leaves(want[1]), strict=True):
        # Relative to the leaf's largest number, or, for what is rounding and nothing else (the gradient of
        # attention's key bias is zero in exact arithmetic), to the largest of all.
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want[1]))
        error = np.abs(np.asarray(one) - np.asarray(other)).max()
        assert error <= 2e-5 * np.abs(other).max() + 1e-7 * largest, name


@over(*SEQUENCE, turned=False, field="layer_unroll")
@pytest.mark.parametrize("layer_unroll", [pytest.param(2, marks=pytest.mark.long), 0])
def test_scanned_layers_equal_unrolled_layers(case, layer_unroll):
    assert_same_loss_and_gradients(with_dropout(case, layer_unroll=layer_unroll), with_dropout(case))


@over(*SEQUENCE, turned=False, field="remat")
@pytest.mark.parametrize(
    "remat",
    [
        pytest.param("dots", marks=pytest.mark.long),
        "full",
        pytest.param("save:query,attention,up", marks=pytest.mark.long),
        "save:key,offload:attention,down",
    ],
)
def test_recomputing_in_the_backward_pass_changes_nothing(case, remat):
    assert_same_loss_and_gradients(with_dropout(case, remat=remat), with_dropout(case))


# --- reading piece by piece -----------------------------------------------------------------------


@over("causal", "recurrent")
@pytest.mark.parametrize("pieces", [[1] * T, [3] * 4, [5, 1, 3, 1, 1, 1]], ids=["ones", "threes", "uneven"])
def test_reading_in_pieces_equals_reading_at_once(case, pieces):
    model = case.model()
    params, x = parameters(model), tokens(model)
    state, parts, start = model.initial_state(B, T), [], 0
    for size in pieces:
        part, state = step(model, params, {"tokens": x[:, start : start + size]}, state)
        parts.append(part)
        start += size
    assert start == T
    assert_close(np.concatenate(parts, axis=1), logits(model, params, {"tokens": x}))


@over("causal", "recurrent", turned=False)
def test_ragged_prompts_go_on_each_from_its_own_length(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    whole = np.asarray(logits(model, params, {"tokens": x}))
    lengths = np.asarray([2, 5, 3], np.int32)
    prompt = np.where(np.arange(5) < lengths[:, None], x[:, :5], tokens(model, seed=2)[:, :5])
    state = model.initial_state(B, T)
    read, state = step(model, params, {"tokens": prompt, "lengths": lengths}, state)
    for row, length in enumerate(lengths):
        assert_close(read[row, :length], whole[row, :length])
    rows = np.arange(B)
    for place in range(4):
        next_B1 = x[rows, lengths + place][:, None]
        read, state = step(model, params, {"tokens": next_B1}, state)
        assert_close(read[:, 0], whole[rows, lengths + place])


# --- dtypes ---------------------------------------------------------------------------------------


@over(*SEQUENCE)
def test_logits_are_float32_where_activations_are_bfloat16(case):
    model = case.model(dtype="bfloat16")
    x, params = tokens(model), model.abstract()
    params = jax.tree.map(lambda spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), params)
    assert jax.eval_shape(lambda params: model.features(params, x)[0], params).dtype == jnp.bfloat16
    assert jax.eval_shape(lambda params: model.apply(params, x), params).dtype == jnp.float32


@over(*SEQUENCE, turned=False)
def test_bfloat16_activations_give_nearly_the_logits_of_float32(case):
    model, params = case.model(), parameters(case.model())
    x = {"tokens": tokens(model)}
    # bfloat16 rounds at 2^-9 = 0.2 %; a dozen roundings in a row through three layers.
    assert_close(logits(case.model(dtype="bfloat16"), params, x), logits(model, params, x), tolerance=0.05)


@over(*SEQUENCE, turned=False)
def test_float64_activations_compute_in_float64_throughout(case):
    with jax.enable_x64(True):
        model = case.model(dtype="float64")
        params, x = parameters(model, dtype=np.float64), tokens(model)
        gradient = functools.partial(jax.grad(train_loss, argnums=1), model)
        program = str(jax.make_jaxpr(gradient)(params, x, x, jax.random.key(0)))
    assert "f64[" in program and "f32[" not in program and "bf16[" not in program


# --- dropout --------------------------------------------------------------------------------------


@over(*SEQUENCE, turned=False)
def test_training_without_a_dropout_key_is_refused(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    for rngs in (None, {}, {"params": jax.random.key(0)}):
        with pytest.raises(ValueError, match="train=True needs rngs="):
            model.apply(params, x, train=True, rngs=rngs)


@over(*SEQUENCE, turned=False)
def test_a_key_without_training_changes_nothing(case):
    model = case.model()
    params, x, key = parameters(model), tokens(model), jax.random.key(0)
    without = jax.make_jaxpr(lambda params, key: model.apply(params, x))(params, key)
    given = jax.make_jaxpr(lambda params, key: model.apply(params, x, rngs={"dropout": key}))(params, key)
    assert str(given) == str(without)


@over(*SEQUENCE, turned=False, field="dropout_rate")
def test_dropout_is_a_function_of_its_key(case):
    model = case.model()
    params, inputs = parameters(model), {"tokens": tokens(model)}
    first, again, other = (train_logits(model, params, inputs, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(np.any(first != other, axis=-1))  # at every position


@over(*SEQUENCE, turned=False, field="dropout_rate")
def test_dropout_differs_between_the_rows_of_a_batch(case):
    model = case.model()
    same = np.repeat(tokens(model, rows=1), B, axis=0)
    out = np.asarray(train_logits(model, parameters(model), {"tokens": same}, jax.random.key(0)))
    assert np.all(np.any(out[0] != out[1], axis=-1)) and np.all(np.any(out[0] != out[2], axis=-1))


@over(*SEQUENCE, turned=False, field="dropout_rate")
def test_training_at_dropout_zero_is_what_evaluation_computes(case):
    model = case.model(dropout_rate=0.0)
    params, x, key = parameters(model), tokens(model), jax.random.key(0)
    train = jax.make_jaxpr(lambda params: model.apply(params, x, train=True, rngs={"dropout": key}))(params)
    assert train.jaxpr.eqns and "random_bits" not in str(train)
    assert_close(train_logits(model, params, {"tokens": x}, key), logits(model, params, {"tokens": x}))


# --- inputs ---------------------------------------------------------------------------------------


@over(*SEQUENCE, turned=False, field="max_length")
def test_a_row_that_is_too_long_is_one_line_with_both_lengths(case):
    model, params = case.model(), parameters(case.model())
    width = case.config.max_length
    jax.eval_shape(model.apply, params, np.zeros((1, width), np.int32))
    with pytest.raises(ValueError) as caught:
        model.apply(params, np.zeros((1, width + 1), np.int32))
    assert re.fullmatch(rf".*{width + 1}.*{width}", str(caught.value))  # a dot is no line's end


@over(*SEQUENCE, turned=False)
def test_an_input_that_no_model_reads_is_refused_by_name(case):
    model, params = case.model(), parameters(case.model())
    with pytest.raises(ValueError, match="token_typos"):
        model.apply(params, {"tokens": tokens(model), "token_typos": 0})
    with pytest.raises(ValueError, match="'tokens'"):
        model.apply(params, {"segments": tokens(model)})


@over(*SEQUENCE, turned=False)
def test_a_length_beyond_the_row_is_one_line_with_its_row_and_value(case):
    model, params = case.model(), parameters(case.model())
    for wrong in (T + 1, -1):
        with pytest.raises(ValueError, match=rf"^lengths\[1\]={wrong} is not between 0 and {T}[^\n]*$"):
            model.features(params, {"tokens": tokens(model), "lengths": np.asarray([3, wrong, T])})


@over(*SEQUENCE, turned=False)
def test_an_array_of_tokens_stands_for_the_inputs(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    np.testing.assert_array_equal(logits(model, params, x), logits(model, params, {"tokens": x}))


# --- the vocabulary -------------------------------------------------------------------------------


@over(*SEQUENCE, turned=False)
def test_readout_of_some_positions_is_that_part_of_the_whole(case):
    model = case.model()
    params, x = parameters(model), tokens(model)
    x_BTD = features(model, params, {"tokens": x})
    whole = np.asarray(logits(model, params, {"tokens": x}))
    readout = jit(model.readout)
    assert_close(readout(params, x_BTD), whole)
    assert_close(readout(params, x_BTD[:, 4:9]), whole[:, 4:9])
    assert_close(readout(params, x_BTD[1, 7]), whole[1, 7])
    chosen = np.random.default_rng(0).random((B, T)) < 0.3
    assert_close(readout(params, x_BTD[chosen]), whole[chosen])


@over(*SEQUENCE, turned=False)
def test_what_pads_the_vocabulary_never_shows(case):
    model = case.model()
    V, x = case.config.vocab_size, {"tokens": tokens(case.model())}
    stored = stored_size("V", V)
    assert stored > V
    whole = logits(model, parameters(model), x)
    assert whole.shape == (B, T, V)
    loud = parameters(model, padding=50.0)
    np.testing.assert_array_equal(logits(model, loud, x), whole)
    twin = case.model(vocab_size=stored)  # the same arrays, nothing of them padding
    assert_close(logits(twin, loud, x)[..., :V], whole)


@over(*SEQUENCE, turned=False)
def test_a_softmax_over_the_stored_vocabulary_equals_the_softmax_over_the_visible_one(case):
    model = case.model()
    params, x = parameters(model, padding=50.0), {"tokens": tokens(model)}
    stored = jit(model.readout_stored)(params, features(model, params, x))
    assert stored.shape == (B, T, stored_size("V", case.config.vocab_size))
    over_all = jax.nn.softmax(stored, axis=-1)
    np.testing.assert_array_equal(over_all[..., case.config.vocab_size :], 0)
    assert_close(over_all[..., : case.config.vocab_size], jax.nn.softmax(logits(model, params, x), axis=-1))


# --- placement ------------------------------------------------------------------------------------


def ways(spec, mesh):
    """Over how many devices a parameter is split."""
    whole = placement(spec.letters, spec.shape, mesh, exact="parameter")
    axes = [axis for entry in whole if entry for axis in (entry if isinstance(entry, tuple) else (entry,))]
    return int(np.prod([mesh.shape[axis] for axis in axes], dtype=int))


def mesh_of(**sizes):
    """A mesh without devices."""
    shape = tuple(sizes.get(axis, 1) for axis in AXES)
    return jax.sharding.AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES))


@each_size
def test_no_large_parameter_is_whole_on_every_device(size):
    model = zoo.models.create(size)
    specs = named(model.abstract())
    # As many ways as the sizes of this model divide: 25 heads and 650 units do not over 4.
    tensor = math.gcd(
        4, *(n for _, spec in specs for a, n in zip(spec.letters, spec.shape, strict=True) if a in "HJZ")
    )
    fsdp = math.gcd(
        4, *(n for _, spec in specs for a, n in zip(spec.letters, spec.shape, strict=True) if a in "DER")
    )
    assert tensor > 1 or "H" in model.config.dims and fsdp > 1
    whole = 0
    for name, spec in specs:
        is_router = spec.letters.endswith("X")  # small, and its experts have an axis of their own
        if spec.contracted and not is_router or len(spec.letters) > 1 and "V" in spec.letters:
            assert ways(spec, mesh_of(fsdp=2, tensor=tensor)) == 2 * tensor, name
        if ways(spec, mesh_of(fsdp=fsdp)) == 1:
            whole += spec.size
    # Some biases have no letter that fsdp splits. They hold 7/12 of 1/d_model of a Transformer.
    assert whole < 0.02 * model.num_params()
