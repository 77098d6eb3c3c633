"""A recipe's parts must fit each other: what cannot be trained is refused before anything is read."""

import dataclasses
from types import SimpleNamespace

import pytest

from zoo import assembly, cli
from zoo.errors import ConfigError
from zoo.recipes import CHOICES, CONFIGS


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (
            "lstm_stdlib --model.direction both --data.layout stream",
            "task=CausalLM trains a model that is 'causal'",
        ),
        ("lstm_stdlib --model seq2seq_tiny", "this Seq2SeqConfig is causal, pair"),
        ("lstm_stdlib --task bilm", "trains a model that is 'directions'"),
        (
            "tag_stdlib --task classify",
            "trains a model that is 'classify', and this TaggerConfig is head, tag",
        ),
        (
            "classify_stdlib --data.kind pairs",
            "reads examples of the kind 'classify', and data gives 'pairs'",
        ),
        ("lstm_stdlib --data examples --data.kind tag", "kind 'text', and data gives 'tag'"),
        ("gpt_stdlib --data word_pairs", "and data gives 'word_pairs'"),
        ("glove_wikitext2 --task skip_gram", "kind 'word_pairs', and data gives 'cooccurrences'"),
        ("gpt_stdlib --data.layout streams", "GPTConfig has none; choose data.layout=stream"),
        ("bilm_stdlib --data.no-characters", "model.words=characters needs data.characters=true"),
        (
            "elmo_tag_stdlib --data.no-characters",
            "model.encoder.encoder.words=characters needs data.characters",
        ),
        (
            "elmo_tag_stdlib --model.encoder.encoder.max-characters 20",
            "model.encoder.encoder.max_characters=50",
        ),
        (
            "tag_stdlib --data.characters",
            "data.characters=true spells words, and no part of TaggerConfig reads",
        ),
        ("bilm_stdlib --model.max-characters 20", "model.max_characters=50"),
        ("lstm_sst2 --data.tokenizer byte --data.min-count 1", "word_dropout_rate=0.1 reads words as <unk>"),
        ("lstm_sst2 --data.tokenizer byte", "min_count=3 is not read by tokenizer=byte"),
        ("lstm_stdlib --data.min-count 2", "min_count=2 is not read by tokenizer=sentencepiece"),
        ("lstm_stdlib --model.cell gru", "forget_bias=1.0 is for cell=lstm"),
        ("classify_stdlib --data.valid-fraction 0", "valid_fraction=0.0 must lie between 0 and 1"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(command, said):
    with pytest.raises(ConfigError) as caught:
        cli.parse(command.split(), CONFIGS, CHOICES, default="gpt_stdlib")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "every"), [({"steps": 1000}, 250), ({"steps": 2}, 1), ({"save_every": 7}, 7)]
)
def test_a_fine_tuning_run_is_saved_four_times_however_many_steps_it_has(flags, every):
    """README's takes 1,000; a quarter of the recipe's own 6,312 would be after its end."""
    data = SimpleNamespace(sizes={}, tokenizer=SimpleNamespace(name="wordpiece"))
    recipe = assembly.complete(dataclasses.replace(CONFIGS["bert_sst2"], **flags), data)
    assert recipe.save_every == every
    assert recipe.eval_every == max(1, recipe.steps // 4)


def test_every_recipe_fits_together():
    for name, recipe in CONFIGS.items():
        assert recipe.name == name and recipe.data.kind == recipe.task.kind
