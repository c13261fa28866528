"""Cold caches: what the last pass has left in the last cache before memory is pushed out of it."""

from collections.abc import Callable
from pathlib import Path

import torch

from bench.errors import UsageError

_CPU_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def make_flusher(device: torch.device) -> Callable[[], object]:
    """What fills the last cache of a device with something else, by as many bytes as the cache holds.

    Raises:
        UsageError: The size of the cache is not known here.
    """
    size = last_cache_bytes(device)
    if size is None:
        raise UsageError(f"the size of the last cache of {device} is not known here: pass --cache warm")
    # Read and written: a mere fill of so much memory may go past the caches of a CPU.
    held = torch.zeros(size, dtype=torch.uint8, device=device)
    return lambda: held.add_(1)


def last_cache_bytes(device: torch.device) -> int | None:
    """Size of a GPU's second-level cache, or of the last-level cache of a CPU; ``None`` if unknown."""
    if device.type == "cuda":
        return getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0) or None
    sizes = {}
    for cache in _CPU_CACHES.glob("index*"):
        try:
            level, size = (int(cache.joinpath("level").read_text()), cache.joinpath("size").read_text().strip())
        except (OSError, ValueError):
            continue
        if size[:-1].isdigit() and size[-1] in _UNITS:
            sizes[level] = int(size[:-1]) * _UNITS[size[-1]]
    return sizes[max(sizes)] if sizes else None
