"""Made-up bytes for every reader of foreign files (fuzz.py): whatever comes, it ends or raises a UserError.

They are always the same here; for other ones, and many more: `pytest tests/test_fuzz.py
--hypothesis-profile=more`.
"""

import json

import pytest

hypothesis = pytest.importorskip("hypothesis")

from fuzz import TARGETS, tried  # noqa: E402
from hostile import settings as hostile_settings  # noqa: E402
from hostile import texts, vocabularies, weights  # noqa: E402
from hostile.samples import SAMPLES  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

QUICK = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("commit", derandomize=True, max_examples=25, **QUICK)
settings.register_profile("more", max_examples=2_000, **QUICK)
if settings.get_current_profile_name() == "default":
    settings.load_profile("commit")

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([-1, 0, 1, 2, 8, 2**31 - 1, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308]),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "\ud800", "\0", "\x1b[2J", "..", "BPE", "WordPiece", "GPTConfig", "yarn", "user", "F32", "O"]
    ),
)


def values(names: list[str]):
    """JSON values whose objects have these names, and others."""
    keys = st.one_of(st.sampled_from(names), st.text(max_size=3))
    return st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


def changed(whole: dict):
    """An object with some of its values, or of those in its objects, put anew or left out."""
    names = [
        *whole,
        *(key for value in whole.values() if isinstance(value, dict) for key in list(value)[:20]),
    ]
    any_value = values(sorted(set(names)))

    def put(changes, inner, gone):
        made = {key: value for key, value in whole.items() if key not in gone} | changes
        for key, value in inner.items():
            if isinstance(made.get(key), dict):
                made[key] = made[key] | value
        return made

    some = st.dictionaries(st.sampled_from(names), any_value, max_size=3)
    inside = st.dictionaries(st.sampled_from(sorted(whole)), some, max_size=2)
    return st.builds(put, some, inside, st.sets(st.sampled_from(sorted(whole)), max_size=1))


def written(made) -> bytes:
    return json.dumps(made).encode()


def mutated(sample: bytes):
    """Bytes with a few of them changed, cut out, or said again."""

    def cut(places, more, kind):
        made = bytearray(sample)
        for place, byte in places:
            place %= len(made) + 1
            if kind == 0 and place < len(made):
                made[place] = byte
            elif kind == 1:
                made[place:place] = more
            elif kind == 2:
                del made[place : place + byte]
            else:
                made[place:place] = made[place : place + byte]
        return bytes(made)

    places = st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=4)
    strange = [
        b"\xff",
        b"\0",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"\r",
        b"\t",
        b'"',
        b"{",
        b"[",
        b"1e999",
        b"NaN",
    ]
    return st.builds(cut, places, st.sampled_from(strange), st.integers(0, 3))


ROTARY = {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "layer_types": None}
OBJECTS = {  # structured: JSON that is nearly sound
    "config": st.sampled_from(
        [hostile_settings.BERT, hostile_settings.LLAMA, hostile_settings.MIXTRAL, hostile_settings.MODERNBERT]
    ).flatmap(
        lambda whole: changed(
            whole | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}, "layer_types": None}
        )
    ),
    "adapter": changed(weights.ADAPTER | {"rank_pattern": {}, "bias": "none"}),
    "recipe": changed(
        hostile_settings.RECIPE | {"model": {"type": "GPTConfig", "d_model": 8}, "mesh": {}}
    ).map(lambda recipe: hostile_settings.RUN | {"recipe": recipe}),
    "labels": changed({"labels": ["a"], "tags": [], "inputs": []}),
    "tokenizer": changed(vocabularies.WHOLE),
    "note": changed({"name": "byte", "digest": "x"}),
    "characters": changed({"characters": "abc", "eot": 3}),
    "index": changed({"weight_map": {"x": "a.safetensors"}}),
    "squad": changed({"data": [{"paragraphs": []}], "version": "1"}),
    "dialogues": changed({"messages": [texts.ANSWER], "tools": [], "system": "x"}),
    "questions": changed(
        {"id": 1, "question": "q", "context": "a", "answers": [{"text": "a", "answer_start": 0}]}
    ),
    "choice": changed({"question": "q", "choices": ["a", "b"], "answer": 1}),
    "spans": changed({"text": "a b", "spans": [{"start": 0, "end": 1, "label": "X"}]}),
    "classify_jsonl": changed({"text": "a", "label": 1}),
}


def test_every_target_has_a_sample():
    assert SAMPLES.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_changed_bytes_are_read_or_refused(name):
    @given(mutated(SAMPLES[name]))
    def check(data):
        tried(name, data)

    tried(name, SAMPLES[name])
    check()


@pytest.mark.parametrize("name", OBJECTS)
def test_changed_values_are_read_or_refused(name):
    @given(OBJECTS[name].map(written))
    def check(data):
        tried(name, data)

    check()


@given(
    st.dictionaries(
        st.text(max_size=4),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "BF16", "I64", "f32", "x"]),
                "shape": st.lists(st.sampled_from([0, 1, 2, 3, -1, 2**40, 2**62]), max_size=3),
                "data_offsets": st.lists(
                    st.sampled_from([0, 4, 8, 16, 24, -4, 2**62]), min_size=1, max_size=3
                ),
            }
        ),
        max_size=3,
    ),
    st.integers(0, 40),
)
def test_a_header_of_any_numbers_is_read_or_refused(header, size):
    tried("header", weights.stored(header, bytes(size)))
