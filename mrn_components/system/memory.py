"""How the process treats memory that tensors give back."""

import ctypes

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Keep freed memory in the process, instead of asking the system for it again.

    glibc maps every large tensor on the CPU anew and unmaps it when it is freed, so that the system
    zeroes its pages each time. That costs an inference of ViT-B in fp32 a twelfth of its time. Peak
    memory stays what it was; memory that is free again is not given back before the process ends.
    Return whether it is kept, which it is not where the C library is not glibc.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows knows no CDLL(None)
        return False
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
