"""The bugs of planted.py can be planted, and the tests that should notice them exist."""

from collections import Counter

from mutants import ROOT, planted
from planted import PLANTED


def test_every_mutant_fits_the_sources_and_names_tests_that_exist():
    assert len(PLANTED) >= 40
    assert not [name for name, count in Counter(mutant.name for mutant in PLANTED).items() if count > 1]
    stale, lost = [], []
    for mutant in PLANTED:
        text = (ROOT / mutant.file).read_text()
        if planted(mutant, text) in (None, text):
            stale.append(mutant.name)
        for test in mutant.tests.split():
            file, _, function = test.partition("::")
            path = ROOT / "tests" / file
            if not path.is_file() or f"def {function.partition('[')[0]}" not in path.read_text():
                lost.append(test)
    assert not stale and not lost
