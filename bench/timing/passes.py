"""One pass: what is timed, from where to where."""

from collections.abc import Sequence
from itertools import cycle
from typing import Literal

import torch
from torch import Tensor

from bench.artefacts.running import Run

Region = Literal["host to device", "host to host", "on device"]


class Passes:
    """Passes of one batch after the other over the same images.

    Args:
        run: The detector.
        batches: In host memory, (B, 3, H, W).
        device: Where the detector runs.
        region: ``host to device``: from images in host memory to maps on the device; ``host to host``: to maps in host
            memory; ``on device``: from images on the device.
        non_blocking: Whether the host goes on while images are transferred.

    Attributes:
        batches: In host memory.
        output: Maps and scores of the latest pass.
    """

    def __init__(
        self, run: Run, batches: Sequence[Tensor], device: torch.device, region: Region, *, non_blocking: bool = False
    ) -> None:
        ready = [batch.to(device) for batch in batches] if region == "on device" else batches
        self._run, self._device, self._non_blocking = run, device, non_blocking
        self._to_host = region == "host to host"
        self.batches = batches
        self._ready = cycle(ready)
        self.output: tuple[Tensor, Tensor] | None = None

    def __call__(self) -> None:
        """Do the next pass."""
        images = next(self._ready).to(self._device, non_blocking=self._non_blocking)
        maps, scores = self._run(images)
        self.output = (maps.cpu(), scores.cpu()) if self._to_host else (maps, scores)
