"""One pass: what is timed, from where to where, and whether it waits for the one before."""

from collections.abc import Sequence
from itertools import cycle
from typing import Literal

import torch
from torch import Tensor

from bench.artefacts.running import Run
from bench.timing.backends import Captured

STREAM_DEPTH = 2
"""Passes that are under way at once in a stream."""

_SHOWN = 8
"""Batches of which an image is looked at."""

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
        inputs: The first image of some of them, (N, 3, H, W).
        output: Maps and scores of the latest pass.
    """

    def __init__(
        self, run: Run, batches: Sequence[Tensor], device: torch.device, region: Region, *, non_blocking: bool = False
    ) -> None:
        ready = [batch.to(device) for batch in batches] if region == "on device" else batches
        self._run, self._device, self._non_blocking = run, device, non_blocking
        self._to_host = region == "host to host"
        self.batches = batches
        self.inputs = torch.stack([batch[0] for batch in batches[:_SHOWN]])
        self._ready = cycle(ready)
        self.output: tuple[Tensor, Tensor] | None = None

    def load(self) -> None:
        """Do what precedes the next pass and is no part of it: nothing here."""

    def __call__(self) -> None:
        """Do the next pass."""
        images = next(self._ready).to(self._device, non_blocking=self._non_blocking)
        maps, scores = self._run(images)
        self.output = (maps.cpu(), scores.cpu()) if self._to_host else (maps, scores)


class StreamedPasses(Passes):
    """Passes on a GPU that do not wait for each other: while it works on one batch, the next is transferred.

    A call hands the next pass over, and returns when there are fewer than ``STREAM_DEPTH`` before it under way.

    Args:
        run: The detector.
        batches: In pinned host memory, (B, 3, H, W).
        device: ``cuda:N``.
    """

    def __init__(self, run: Run, batches: Sequence[Tensor], device: torch.device) -> None:
        super().__init__(run, batches, device, "host to device", non_blocking=True)
        self._copying = torch.cuda.Stream(device)
        self._slots = cycle([_Slot(torch.empty_like(batches[0], device=device)) for _ in range(STREAM_DEPTH)])

    def __call__(self) -> None:
        """Hand over the next pass."""
        slot = next(self._slots)
        slot.done.synchronize()
        with torch.cuda.stream(self._copying):
            slot.images.copy_(next(self._ready), non_blocking=True)
            slot.copied.record()
        torch.cuda.current_stream(self._device).wait_event(slot.copied)
        self.output = self._run(slot.images)
        slot.done.record()


class _Slot:
    """Images on the device, with when they have come and when they are no longer needed."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.copied, self.done = torch.cuda.Event(), torch.cuda.Event()


class ReplayedPasses(Passes):
    """Replays of one captured pass over images that lie on the device already.

    Args:
        captured: The pass.
        batches: In host memory, (B, 3, H, W).
        device: ``cuda:N``.
    """

    def __init__(self, captured: Captured, batches: Sequence[Tensor], device: torch.device) -> None:
        super().__init__(captured, batches, device, "on device")
        self._captured = captured

    def load(self) -> None:
        """Give the captured pass the next images."""
        self._captured.load(next(self._ready))

    def __call__(self) -> None:
        """Do the pass once more."""
        self.output = self._captured.replay()
