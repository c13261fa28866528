"""Reproducible fits: seeded generators and deterministic algorithms, both put back afterwards."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every global random generator and choose deterministic algorithms, for the time of a fit.

    Outside, neither is wanted: on CUDA PyTorch replaces bilinear interpolation by some 35 kernels while deterministic
    algorithms are chosen, which inference does not need. Generators and settings are put back at the end.

    Args:
        seed: Of Python's, NumPy's (modulo 2**32) and PyTorch's global generators.
        device: Whose generator is seeded besides the CPU's.
    """
    cudnn = torch.backends.cudnn
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    settings = cudnn.benchmark, cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    mode = torch.get_deterministic_debug_mode()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that draw from it
            # Not torch.manual_seed: it seeds every device, and only these two generators are put back.
            torch.default_generator.manual_seed(seed)
            if device.type == "cuda":
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(seed)
            # Unlike torch.use_deterministic_algorithms it loads no compiler, which would take seconds.
            torch.set_deterministic_debug_mode("warn")
            # Filling memory that is about to be overwritten guards against reading it too early, and costs time.
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
            cudnn.benchmark, cudnn.deterministic = False, True
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.set_deterministic_debug_mode(mode)
            cudnn.benchmark, cudnn.deterministic, torch.utils.deterministic.fill_uninitialized_memory = settings  # type: ignore[attr-defined]
