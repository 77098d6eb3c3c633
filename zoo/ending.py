"""The one way out of a process that cannot go on: at once, with a code, and without a farewell.

The interpreter's own way waits: for threads that hang on a dead disk, and of several processes for the
others, which wait in a computation for this one. `sys.exit` in the midst of a run would do the same.
"""

import contextlib
import faulthandler
import os
import sys
import threading
import traceback
from typing import Any, NoReturn

from zoo import events
from zoo.errors import INTERNAL

PATIENCE_SECONDS = 3.0  # for a disk or a terminal that does not take the last words


def die(code: int, event: str = "", text: str = "", *, stacks: bool = False, **facts: Any) -> NoReturn:
    """Ends this process with `code`, after an event, a line of text and the stacks of all threads where they
    are asked for."""
    overdue = threading.Timer(PATIENCE_SECONDS, os._exit, [code])
    overdue.daemon = True
    overdue.start()
    with contextlib.suppress(Exception):  # whatever still goes wrong, the code is what matters now
        if event:
            events.write(event, of_all=True, code=code, **facts)
        if text:
            print(text, file=sys.stderr)
        if stacks:
            faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def arm() -> None:
    """From now on what nobody catches, in whatever thread, ends the process with code 70, and a crash shows
    where it was. For programs; a library leaves such things to its user."""
    if sys.__stderr__ is not None:
        faulthandler.enable()

    def uncaught(kind, error, trace, _thread=None):
        text = "".join(traceback.format_exception(kind, error, trace))
        die(INTERNAL, "error", text, error=f"{kind.__name__}: {error}")

    sys.excepthook = uncaught
    threading.excepthook = lambda found: uncaught(*found)
