"""The host's memory where the host computes: kept between steps, in huge pages. With glibc; else nothing.

glibc's malloc maps large arrays anew every time and gives them back when they are freed: each step begins
with a fault for every 4 KiB. Measured on two virtual cores of an Intel Xeon (AVX-512), jaxlib 0.10.2, train
steps of `benchmarks/workloads.py`, in milliseconds as they were, with memory kept, and kept in huge pages:
BERT base 2,190, 2,099, 1,879; LSTM 2x1500 1,512, 1,556, 1,244; 2x650 450, 418, 374; 2x200 97, 82, 69.
Faults of a step of BERT base: 249,025, 1, 0. A process that has compiled that step itself gains half as much:
what the compiler leaves in the heap makes malloc search longer.
"""

import ctypes
import functools
import mmap
import os
import sys

# mallopt's numbers, of <malloc.h>.
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8
HUGE = 2 << 20
LEAST = 64 << 20
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


def _glibc():
    """The C library of this process, where its malloc is glibc's own and can be told what to do."""
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD"):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version") or not hasattr(libc, "mallopt"):
        return None
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.restype, libc.free.argtypes = None, [ctypes.c_void_p]
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
