"""Work in a process of its own: the TPU's compiler is large, and can crash without a word."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

from zoo.errors import INTERNAL, INTERRUPTED, ConfigError, UserError


class Crashed(ConfigError):
    """The process ended by a signal, which is the message: SIGSEGV."""


def apart(work: Callable[[], Any]) -> Any:
    """What `work` returns, computed in a forked process; it travels through a pipe.

    No device may have started, as a fork copies no threads. What a person can mend is raised here as it was
    there; a signal that ended the process raises Crashed; any other error has been told and ends this one
    too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if not child:
        os._exit(answered(work, writing))  # without the compiler's farewell, which can crash too
    writing.close()
    try:
        is_result, value = reading.recv()
    except EOFError:  # it ended without an answer
        is_result, value = False, None
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code < 0:
        raise Crashed(signal.Signals(-code).name)
    if code:
        raise SystemExit(code)
    if not is_result:
        raise value
    return value


def answered(work: Callable[[], Any], pipe) -> int:
    """Writes (whether it is a result, the result or the error) to the pipe; returns the exit code."""
    try:
        try:
            answer = True, work()
        except UserError as error:
            answer = False, error
        pipe.send(answer)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return INTERNAL
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
