"""`python -m zoo VERB`: look at models and runs, and use them.

list [PATTERN]              published sizes and recipes
show NAME                   a size, a recipe or a model's folder: settings, parameters, FLOPs
generate MODEL PROMPT       continue a text
chat MODEL                  a dialogue
score MODEL FILE            the log-probability of each line of a file
fill MODEL TEXT             the likeliest words for each [MASK] in a text
eval MODEL [FILE]           a run's metrics on its validation or test data, or a model's on a labelled file
predict MODEL FILE          labels, tags, targets, answers, scores or similarities of a file's texts
embed MODEL FILE            vectors of a file's texts
checkpoints RUN             a run's checkpoints, and whether each is what was written
doctor                      what this machine has, and what is wrong with it
launch PROGRAM ...          a rehearsal of several processes on this machine
export MODEL FOLDER         write a model as Hugging Face publishes one, or a run's adapters as peft does
data --run R --step S       what a step of a run saw; --check: that it saw every example once an epoch
words MODEL [WORD ...]      word vectors: neighbours, similarity and analogy tests, export to a file

MODEL is a run's folder, a folder as Hugging Face publishes models, or hf:ID, which is fetched from the hub.
"""

import argparse
import importlib
import json
import os
import sys
import traceback

from zoo.errors import INTERNAL, INTERRUPTED, ConfigError, UserError
from zoo.models.quantised import WEIGHTS

MODEL = "a run's folder, a Hugging Face one, or hf:ID"

COLUMNS = "where fields stand that go by other names than in the run's data: text=review label=stars"

DRAWING = (
    ("seed", int, "the same seed and prompt give the same text (0)"),
    ("temperature", float, "0 takes the likeliest token (0.8)"),
    ("top-k", int, "draw among the k likeliest; 0: all (200)"),
    ("top-p", float, "draw among the likeliest that hold this share (1)"),
    ("min-p", float, "draw among those at least this share as likely as the likeliest (0)"),
    ("repetition-penalty", float, "divides the logits of tokens in the prompt or the text so far (1)"),
    ("presence-penalty", float, "taken off the logits of tokens in the text so far (0)"),
    ("frequency-penalty", float, "the same for each time that the text has them (0)"),
    ("cache", str, "dtype of attention's keys and values: float32, bfloat16 or int8 (the model's)"),
)


def main(argv: list[str]) -> int:
    """Runs one verb; returns the exit code. The last line on stdout is one JSON object."""
    parser = Parser(
        prog="python -m zoo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    verb = verbs.add_parser("list", help="published sizes and recipes")
    verb.add_argument("pattern", nargs="?", default="*", help='a shell pattern such as "gpt2*"')
    verb.set_defaults(run="show.show_list")

    verb = verbs.add_parser("show", help="settings, parameters and FLOPs of a size, a recipe or a run")
    verb.add_argument("name")
    verb.set_defaults(run="show.show")

    verb = verbs.add_parser(
        "generate", help="continue a text; of a model of pairs, what it makes of a source"
    )
    verb.add_argument("model", help=MODEL)
    verb.add_argument("prompt", help="-: each line of standard input is one")
    for name, kind, words in (
        ("tokens", int, "how many to write at most (200)"),
        ("count", int, "continuations of each prompt, by seeds that count on from --seed (1)"),
        ("beam", int, "search with this many texts instead of drawing"),
        ("draft", str, "a small model that drafts, for speed; the texts are the large one's"),
    ):
        verb.add_argument(f"--{name}", type=kind, help=words, default=200 if name == "tokens" else None)
    verb.add_argument("--logprobs", action="store_true", help="tokens and log-probabilities in the last line")
    verb.add_argument("--stream", action="store_true", help="print the text as it is written")
    verb.set_defaults(run="generate.write")

    verb = verbs.add_parser("chat", help="a dialogue with a model that has a chat template")
    verb.add_argument("model", help=MODEL)
    verb.add_argument("--system", default="", help="what the model is told before the dialogue")
    verb.add_argument("--template", default="", help="a file with a chat template (the model's)")
    verb.add_argument("--tokens", type=int, default=512, help="longest answer (512)")
    verb.set_defaults(run="chat.chat")

    for name in ("generate", "chat"):
        for option, kind, words in DRAWING:
            verbs.choices[name].add_argument(f"--{option}", type=kind, help=words, default=None)
        verbs.choices[name].add_argument(
            "--stop", action="append", default=[], help="end before this string; may be repeated"
        )

    verb = verbs.add_parser("score", help="the log-probability of each line of a file")
    verb.add_argument("model", help=MODEL)
    verb.add_argument("file", help="a text file, each line a text; also .gz")
    verb.set_defaults(run="score.score")

    verb = verbs.add_parser("fill", help="the likeliest words for each [MASK] in a text")
    verb.add_argument("model", help=MODEL)
    verb.add_argument("text", help='such as "the [MASK] sat on the mat"')
    verb.add_argument("--count", type=int, default=5, help="how many words for each (5)")
    verb.set_defaults(run="fill.show")

    verb = verbs.add_parser("eval", help="a run's metrics on its validation or test data")
    verb.add_argument("model", help=MODEL)
    verb.add_argument(
        "file",
        nargs="?",
        default="",
        help="a labelled file, slots also as a folder of three (language models: a text)",
    )
    verb.add_argument("--part", default="", help="train, valid or test (valid)")
    verb.add_argument("--data", default="", help="other data with the same training part")
    verb.add_argument("--batch-size", type=int, default=0, help="rows, or parallel streams (the run's)")
    verb.add_argument("--columns", nargs="+", default=[], help=COLUMNS)
    verb.set_defaults(run="evaluate.report")

    verb = verbs.add_parser("predict", help="labels, tags, targets or answers of a file's texts")
    verb.add_argument("model", help=MODEL)
    verb.add_argument(
        "file",
        help="a text on each line, .tsv, .csv, .jsonl, .conll or SQuAD's .json, each also .gz; - reads lines "
        "or JSON objects from standard input",
    )
    verb.add_argument("--columns", nargs="+", default=[], help=COLUMNS)
    verb.set_defaults(run="predict.predict")

    verb = verbs.add_parser("export", help="write a model as Hugging Face publishes one")
    verb.add_argument("model", help=MODEL)
    verb.add_argument("folder", help="a folder that is not there yet, or empty")
    verb.add_argument(
        "--format",
        choices=("hf", "peft"),
        default="hf",
        help="peft: a run's adapters alone, without base (hf)",
    )
    verb.add_argument("--max-shard-size", type=float, default=None, help="of a weights file, in GB (5)")
    verb.set_defaults(run="export.export")

    verb = verbs.add_parser("embed", help="vectors of a file's texts")
    verb.add_argument("model", help=MODEL)
    verb.add_argument("file", help="a text on each line, .tsv, .csv or .jsonl, each also .gz; - reads stdin")
    verb.add_argument("--out", default="", help="write F.npy or F.jsonl instead of printing JSON lines")
    verb.add_argument("--column", default="", help="which column of a table is the text (text)")
    verb.add_argument("--pooling", default="", help="mean, first, max or last (an embedder's own; mean)")
    verb.add_argument("--normalize", default="", help="l2 or none (an embedder's own; l2)")
    verb.add_argument("--wrap", default="", help="marks around a text: none, end or both (the run's)")
    verb.set_defaults(run="embed.embed")

    verb = verbs.add_parser("words", help="word vectors: neighbours, tests, export")
    verb.add_argument("model", help="a run's folder, or a file of vectors as word2vec or GloVe writes them")
    verb.add_argument("words", nargs="*", help="show the neighbours of these")
    verb.add_argument("--similarity", nargs="+", default=[], help="files of word pairs with scores")
    verb.add_argument("--analogies", nargs="+", default=[], help="files of questions a b c d")
    verb.add_argument("--export", default="", help="write the vectors: .txt word2vec's text, .bin, .glove")
    verb.set_defaults(run="words.words")

    verb = verbs.add_parser("data", help="what a step of a run saw, or the proof of what all of them did")
    verb.add_argument("--run", dest="folder", required=True, help="a run's folder")
    verb.add_argument("--step", type=int, default=0, help="which step, from 1")
    verb.add_argument("--rows", type=int, default=0, help="how many rows of it to show (all)")
    verb.add_argument("--check", action="store_true", help="go through the receipts of all steps")
    verb.set_defaults(run="data.show")

    verb = verbs.add_parser("checkpoints", help="a run's checkpoints, and whether each is what was written")
    verb.add_argument("run_folder", metavar="RUN", help="a run's folder")
    verb.set_defaults(run="checkpoints.show")

    verb = verbs.add_parser("doctor", help="what this machine has, and what is wrong with it")
    verb.add_argument("--runs", default="runs", help="where runs are to be kept (runs)")
    verb.add_argument("--cluster.coordinator", dest="coordinator", default="", help="as of train.py")
    verb.add_argument("--cluster.processes", dest="processes", type=int, default=0, help="as of train.py")
    verb.add_argument("--cluster.process", dest="process", type=int, default=-1, help="as of train.py")
    verb.add_argument(
        "--cluster.start-seconds",
        dest="start_seconds",
        type=int,
        default=60,
        help="to wait for the others (60)",
    )
    verb.set_defaults(run="doctor.examine")

    verb = verbs.add_parser("launch", help="several processes on this machine that train as one")
    verb.add_argument("--processes", type=int, default=2, help="how many (2)")
    verb.add_argument("--devices", type=int, default=0, help="virtual CPU devices in all (one for each)")
    verb.add_argument(
        "--retries",
        type=int,
        default=0,
        help="starts again in a row, without a later step saved (0)",
    )
    verb.add_argument("command", nargs=argparse.REMAINDER, help="train.py RECIPE ..., or -- -m zoo doctor")
    verb.set_defaults(run="launch.launch")

    for name in ("generate", "chat", "score", "fill", "eval", "predict", "embed", "export"):
        verbs.choices[name].add_argument(
            "--adapter", default="", help="a folder of peft's, or hf:ID: adapters to be merged into MODEL"
        )
        if name != "export":
            verbs.choices[name].add_argument(
                "--weights", choices=tuple(WEIGHTS), default="", help="whole numbers in less room (float32)"
            )

    try:
        options = parser.parse_args(argv)
        module, function = options.run.split(".")
        run = getattr(importlib.import_module(f"zoo.verbs.{module}"), function)
        report = run(options)
        if isinstance(report, int):  # launch and doctor have printed theirs
            return report
        print(json.dumps(report, separators=(",", ":"), ensure_ascii=False))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception:
        traceback.print_exc()
        return INTERNAL


class Parser(argparse.ArgumentParser):
    """Mistakes are one line like everybody else's."""

    def error(self, message):
        raise ConfigError(f"{message}; `python -m zoo --help` shows how")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
