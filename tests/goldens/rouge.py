"""Makes rouge.json: what the package rouge_score says of made-up summaries.

    pip install rouge-score==0.1.2        # in an environment of its own; the suite does without it
    python tests/goldens/rouge.py         # writes the file beside this one

Per case: a prediction, its references, and [precision, recall, F] of rouge1, rouge2 and rougeLsum of the
reference that has the best F. No stemmer. The drawn cases are of few words, so that longest common
subsequences are many.
"""

import json
import random
from pathlib import Path

FILE = Path(__file__).with_suffix(".json")

WRITTEN = [  # (prediction, references)
    ("the parser reads one line", ["the parser reads one line"]),
    ("the parser reads one line", ["the writer reads two lines"]),
    ("reads line one parser the", ["the parser reads one line"]),
    ("a small parser", ["a small and rather slow parser of dates"]),
    ("a small and rather slow parser of dates", ["a small parser"]),
    ("the the the the", ["the cat and the dog"]),
    ("the cat and the dog", ["the the the the"]),
    ("nothing shared", ["entirely different words"]),
    ("", ["entirely different words"]),
    ("some words", [""]),
    ("...", ["some words"]),
    ("word", ["word"]),
    ("word", ["another word here"]),
    ("Upper CASE words", ["upper case WORDS"]),
    ("state-of-the-art results, 99.5% right!", ["State of the art: results 99 5 right"]),
    ("don't_split this", ["don t split this"]),
    ("caf\u00e9 na\u00efve", ["cafe naive"]),
    ("\u0130stanbul \u00df K", ["istanbul ss k"]),  # letters whose lower case is longer, or lies in a-z
    ("running runners ran", ["run runner runs"]),
    ("tabs\tand  blanks", ["tabs and blanks"]),
    ("one two three four five", ["five four three two one"]),
    ("a b c d a b", ["b a d c b a"]),
    ("returns the length", ["the length of a list", "returns how long it is", "returns the length"]),
    ("returns the length", ["length", "the returns are long", "something else"]),
    ("a b c", ["a x b y c", "c b a", "a b"]),
    ("police killed the gunman", ["the gunman police killed", "police kill the gunman"]),
    ("first sentence here\nsecond sentence there", ["first sentence here\nsecond sentence there"]),
    ("second sentence there\nfirst sentence here", ["first sentence here\nsecond sentence there"]),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"]),
    ("w1 w2 w3 w4 w5", ["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"]),
    ("the dog\nthe dog\nthe dog", ["the dog barks\nthe cat sleeps"]),
    ("\nblank lines\n\nbetween\n", ["blank\nlines between"]),
]


def drawn(count: int = 30) -> list[tuple[str, list[str]]]:
    """Texts of one to three lines over five words."""
    random.seed(1)

    def text():
        return "\n".join(
            " ".join(random.choices("abcde", k=random.randint(1, 9))) for _ in range(random.randint(1, 3))
        )

    return [(text(), [text() for _ in range(random.randint(1, 3))]) for _ in range(count)]


def main() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    names = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeLsum": "rouge_l"}
    scorer = RougeScorer(list(names), use_stemmer=False)
    cases = [
        {"prediction": prediction, "references": references}
        | {names[name]: list(score) for name, score in scorer.score_multi(references, prediction).items()}
        for prediction, references in WRITTEN + drawn()
    ]
    lines = ",\n".join(json.dumps(case) for case in cases)
    FILE.write_text(f'{{"made_with": "rouge_score 0.1.2", "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
