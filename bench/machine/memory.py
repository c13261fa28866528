"""How this process keeps its memory, and how much it has taken."""

import re
from contextlib import suppress
from pathlib import Path


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


def forget_peak() -> None:
    """Begin to measure the peak of this process anew, where the system can: see :func:`peak_memory`."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5)


def peak_memory() -> int | None:
    """Most bytes of main memory that this process has held since :func:`forget_peak`; ``None`` where nobody counts.

    What it has kept of earlier work, to use it again, is among them.
    """
    try:
        match = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(match[1]) if match else None
