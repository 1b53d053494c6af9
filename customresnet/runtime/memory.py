"""Keep freed memory for the next step instead of handing it back to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, however large.

    A training step on a CPU frees all its activations, and the next one asks for the same again. By default glibc gives
    large blocks back at once, so that every step touches fresh pages, each of which costs a fault. The price is that
    memory once used stays with the process.

    Returns:
        Whether this C library can.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
