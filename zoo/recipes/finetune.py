"""BERT under each of its heads: classes, pairs, tags, intents with slots, answers.

The encoder is BERT mini, at random unless `--init` names what to start from. Settings are those of the BERT
paper's appendix A.3 (batch 32, a tenth of the steps to warm up, 2 to 4 epochs) at a rate of 1e-4, which is
one of those that the small models were released with (google-research/bert, README); BERT base wants 2e-5 to
5e-5. Each reads the folder of its name, or --data.path, and without --data.vocab-path trains pieces on it.

`span_stdlib` needs no files: a small BERT that begins at random finds what Python's functions return, raise
and take.
"""

from typing import Any

from zoo.data import ExamplesConfig
from zoo.models.bert import BERTConfig
from zoo.models.classifier import ClassifierConfig
from zoo.models.joint import JointConfig
from zoo.models.span import SpanConfig
from zoo.models.tagger import TaggerConfig
from zoo.optim import AdamW, Muon
from zoo.recipes.recipe import Recipe
from zoo.schedules import Linear, SlantedTriangle
from zoo.tasks import Classify, Slots, Span, Tag

MINI = BERTConfig(vocab_size=0, num_layers=4, d_model=256, num_heads=4)

# [CLS] through a tanh layer, BERT's pooler, to the classes.
_CLASSES = ClassifierConfig(encoder=MINI, num_classes=0, pooling="first", d_hidden=256, dropout_rate=0.1)
_TAGS = TaggerConfig(encoder=MINI, num_tags=0, decoder="softmax", dropout_rate=0.1)


def _finetuned(
    model, task, kind: str, path: str, *, vocab_size: int = 8192, steps: int, **data: Any
) -> Recipe:
    """One of these runs, saved and evaluated four times, however many steps it is given."""
    return Recipe(
        model=model,
        task=task,
        data=ExamplesConfig(
            kind=kind, path=path, tokenizer="wordpiece", vocab_size=vocab_size, wrap="both", **data
        ),
        optimizer=AdamW(learning_rate=1e-4, beta2=0.999, eps=1e-6, weight_decay=0.01),
        schedule=SlantedTriangle(warmup_fraction=0.1),
        steps=steps,
        save_every=0,
        eval_every=0,
        eval_batches=0,
    )


# Questions about Python's functions, a few minutes on two CPU cores.
_SPAN = Recipe(
    model=SpanConfig(
        encoder=BERTConfig(
            vocab_size=0,
            max_length=256,
            num_layers=2,
            num_heads=4,
            d_model=128,
            dropout_rate=0.0,
            layer_unroll=0,
        )
    ),
    task=Span(),
    data=ExamplesConfig(
        kind="span",
        tokenizer="wordpiece",
        vocab_size=4096,
        wrap="both",
        max_length=256,
        stride=128,
        bucket=64,
    ),
    optimizer=Muon(learning_rate=6e-3, adam_learning_rate=3e-3),
    schedule=Linear(warmup_steps=30, final_fraction=0.05),
    steps=600,
    save_every=300,
)

RECIPES = {
    "span_stdlib": _SPAN,
    # 67,349 sentences, 3 epochs.
    "bert_sst2": _finetuned(
        *(_CLASSES, Classify(), "classify", "sst2"), steps=6312, max_length=128, bucket=16
    ),
    # 3,668 pairs, 4 epochs.
    "bert_mrpc": _finetuned(
        *(_CLASSES, Classify(), "classify", "mrpc"), steps=456, max_length=128, bucket=32
    ),
    # 13,084 utterances, 4 epochs.
    "bert_snips": _finetuned(
        *(JointConfig(encoder=MINI, num_classes=0, num_tags=0, dropout_rate=0.1), Slots(), "slots", "snips"),
        steps=1632,
        max_length=128,
    ),
    # 3,394 tweets, 4 epochs; case tells names from words.
    "bert_wnut17": _finetuned(
        *(_TAGS, Tag(), "tag", "wnut17"), steps=424, max_length=256, bucket=16
    ),
    # 9,600 reviews, 3 epochs.
    "bert_chnsenticorp": _finetuned(
        *(_CLASSES, Classify(), "classify", "chnsenticorp"), steps=900, max_length=256, bucket=64
    ),
    # 3,821 sentences, 4 epochs.
    "bert_resume_ner": _finetuned(
        *(_TAGS, Tag(), "tag", "resume-ner-zh"), steps=476, max_length=256, bucket=16
    ),
    # 87,599 questions in some 88,600 windows, 2 epochs.
    "bert_squad": _finetuned(
        *(SpanConfig(encoder=MINI), Span(), "span", "squad"),
        steps=5536,
        max_length=384,
        stride=128,
        bucket=64,
    ),
}  # fmt: skip
