"""The host's memory where the host computes: kept between steps, in huge pages. With glibc; else nothing.

glibc's malloc maps large arrays anew every time and gives them back when they are freed: each step begins
with a fault for every 4 KiB. Measured on two virtual cores of an Intel Xeon (AVX-512), jaxlib 0.10.2, train
steps of `benchmarks/workloads.py`, in milliseconds as they were, with memory kept, and kept in huge pages:
BERT base 2,190, 2,099, 1,879; LSTM 2x1500 1,512, 1,556, 1,244; 2x650 450, 418, 374; 2x200 97, 82, 69.
Faults of a step of BERT base: 249,025, 1, 0.

The compiler leaves thousands of holes of all sizes in the heap, and malloc looks through them whenever a
matmul asks for room: GPT 4x128 takes 58 ms a step where the process has compiled it, 44 where it has read it
from the compile cache, and 47 once the holes are closed.
"""

import ctypes
import functools
import mmap
import os
import sys

# mallopt's numbers, of <malloc.h>.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
HUGE = 2 << 20
LEAST = 64 << 20  # of huge pages that are worth asking for
HOLES = range(1040, 8 << 20)  # bytes; smaller ones malloc finds without a search
LARGE = 1 << 30
WORD = 8  # between two blocks
GIVEN = ("MALLOC_", "GLIBC_TUNABLES")


@functools.cache
def keep() -> str:
    """Has malloc take everything from one heap, keep what is freed, and ask for huge pages in a part of it as
    large as half of the machine's memory, which is addresses and no memory until it is used. To be called
    before JAX starts; once is enough. Returns what was done, in words; "" where nothing was, as where the
    environment has MALLOC_... or GLIBC_TUNABLES: whoever sets them knows better.
    """
    libc = _glibc()
    if libc is None or any(name.startswith(GIVEN) for name in os.environ):
        return ""
    if not all((libc.mallopt(MMAP_MAX, 0), libc.mallopt(TRIM_THRESHOLD, -1), libc.mallopt(ARENA_MAX, 1))):
        return ""
    reserved = _reserve(libc, os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 2)
    return "kept between steps" + (f", huge pages in {reserved / (1 << 30):.1f} GiB" if reserved else "")


@functools.cache
def settle(after: str) -> int:
    """Closes the holes that compiling has left in a heap that is kept: takes them from malloc for good, and
    gives their pages back to the system. Once for each name of what was compiled, so that no hole is closed
    which something else would fill again. Returns how many bytes they had.
    """
    if not keep.cache_info().currsize or not keep():  # nobody has asked for it, or it cannot be
        return 0
    libc = _glibc()
    if (end := libc.malloc(LARGE)) is None:
        return 0
    libc.free(end)  # it fits into no hole: the rest of the heap begins here
    passing, behind, size, closed = [], set(), LARGE // 2, 0
    while size >= HOLES.start:
        if (start := libc.malloc(size)) is None or start >= end:
            libc.free(start)
            size = size // 2 if size >= HOLES.stop else size * 7 // 8
            continue
        # From the beginning of a large hole, which stays open, as does what lies behind the block in it.
        large = size >= HOLES.stop or start in behind
        if large:
            passing.append(start)
            behind.add(start + libc.malloc_usable_size(start) + WORD)
        else:
            closed += size
            _give_back(libc, start, size)
    for start in passing:
        libc.free(start)
    return closed


def _give_back(libc, start: int, size: int):
    """The pages that lie within the block; what they hold is lost."""
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        libc.madvise(first, end - first, mmap.MADV_DONTNEED)


@functools.cache
def _glibc():
    """The C library of this process, where its malloc is glibc's own and can be told what to do."""
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD"):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return None
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
    libc.malloc_usable_size.restype, libc.malloc_usable_size.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


def _reserve(libc, size: int) -> int:
    """Bytes at the end of the heap that are to be in huge pages once they are used: `size` of them, or as
    much less as the process may have."""
    if _is_strict():
        return 0
    while size >= LEAST:
        if start := libc.malloc(size):
            first = -(-start // HUGE) * HUGE
            size = (start + size - first) // HUGE * HUGE
            advised = libc.madvise(first, size, mmap.MADV_HUGEPAGE) == 0
            libc.free(start)
            return size if advised else 0
        size //= 2
    return 0


def _is_strict() -> bool:
    """Whether the kernel counts addresses as memory; nothing is reserved there."""
    try:
        with open("/proc/sys/vm/overcommit_memory") as file:
            return file.read().strip() == "2"
    except OSError:
        return True
