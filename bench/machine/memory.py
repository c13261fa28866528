"""How this process keeps its memory."""

from contextlib import suppress


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of returning each to the system and faulting it in again, page by page.

    A training step allocates the same hundreds of megabytes as the one before it.
    """
    import ctypes

    trim_threshold, mmap_max = -1, -4  # malloc.h
    with suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
