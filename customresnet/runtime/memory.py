"""Keep freed memory for the next step instead of returning it to the system."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory, whatever the size of the block.

    A training step on a CPU frees all its activations, and the next step allocates them again. By default, glibc
    returns large blocks at once, so every step touches new pages, and each causes a page fault. The drawback: the
    process never returns memory that it has used.

    Returns:
        Whether the C library supports it.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))
