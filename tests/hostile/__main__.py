"""Writes all hostile folders, to look at them."""

import sys
from pathlib import Path

from hostile import cases

for case in cases():
    case.write(Path(sys.argv[1]) / case.reader / case.name)
