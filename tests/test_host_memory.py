"""Memory that a process keeps: each in a process of its own, as malloc cannot be told to forget."""

import os
import subprocess
import sys

import pytest

from zoo import host_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")

FAULTS = """
import resource
import numpy as np
from zoo import host_memory
{first}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    array = np.empty(8 << 20, np.float32)
    array[:] = 1  # 32 MiB, 8,192 pages
step()
before = faults()
for _ in range(4):
    step()
print(faults() - before)
"""


def faults_of(first, **environment):
    """Of four arrays of 32 MiB, made and given back one after the other."""
    code = FAULTS.format(first=first)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(host_memory.GIVEN)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=clean | environment, check=True
    )
    *words, last = run.stdout.splitlines()
    return words, int(last)


def test_what_was_freed_is_there_for_the_next_step():
    words, count = faults_of("print(host_memory.keep()); print(host_memory.keep())")
    assert words[0].startswith("kept between steps") and words[0] == words[1]
    assert count < 16
    assert faults_of("")[1] > 16  # 4 x 16 huge pages or 4 x 8,192 small ones: numpy asks for huge ones too


def test_who_sets_malloc_knows_better():
    words, count = faults_of("print(host_memory.keep())", MALLOC_ARENA_MAX="2")
    assert words == [""] and count > 16


def test_no_more_addresses_than_a_process_may_have():
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)); "
    words, count = faults_of(limit + "print(host_memory.keep()); print(host_memory.settle('test') >= 0)")
    assert words[0].startswith("kept between steps") and words[1] == "True" and count < 16
    tight = "import resource; resource.setrlimit(resource.RLIMIT_AS, (700 << 20, 700 << 20)); "
    words, _ = faults_of(tight + "print(host_memory.keep()); print(host_memory.settle('test'))")
    assert words[1] == "0"  # no room to look from


HOLES = """
import ctypes
from zoo import host_memory
kept = host_memory.keep()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
MB = 1 << 20
large = libc.malloc(100 * MB)
blocks = [libc.malloc(MB // 16) for _ in range(1001)]
living, small = blocks[::2], blocks[1::2]  # holes of 64 KiB, kept apart by what lives
for each in living:
    ctypes.memset(each, 7, MB // 16)
for each in (large, *small):
    libc.free(each)
closed = host_memory.settle("test")
assert all(ctypes.string_at(each, MB // 16) == bytes([7]) * (MB // 16) for each in living)
assert abs(libc.malloc(100 * MB) - large) < MB  # open still, in one piece
assert sum(libc.malloc(MB // 16) in small for _ in range(100)) < 5  # but one that the large hole swallowed
print(kept != "", closed >= 400 * MB // 16, host_memory.settle("test") == closed)
"""


def test_holes_that_a_compiler_leaves_are_closed_and_large_ones_stay_open():
    clean = {name: value for name, value in os.environ.items() if not name.startswith(host_memory.GIVEN)}
    run = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, env=clean)
    assert run.stdout.split() == ["True"] * 3, run.stderr


def test_nothing_is_closed_where_nobody_asked_for_memory_to_be_kept():
    code = "from zoo import host_memory; print(host_memory.settle('a'))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0"]
