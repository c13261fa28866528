"""Pretraining images of EfficientAD's penalty (Batzner et al., WACV 2024, Algorithm 1, line 21)."""

import math
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from methods.common.resident_images import ResidentImages
from methods.common.torchvision_import import import_torchvision
from methods.detector import ImageSet, ImageSource
from methods.efficientad.networks import INPUT_SIZE
from methods.errors import MethodError

PENALTY_IMAGES = 2048
"""Held at a time, 400 MB on the device; as many draws later others take their place, which a thread has read meanwhile
into as much memory of the host."""
PENALTY_BYTES = 2**30


class PenaltyImages:
    """Pretraining images P, one after another (line 21 and its comment).

    Args:
        photographs: Where they come from.
        seed: Of each choice from a large folder.
        device: Where they are wanted.
        draws: How many will be wanted: no more are read.
        held: Photographs at a time.
    """

    _images: ResidentImages

    def __init__(
        self, photographs: ImageSource, seed: int, device: torch.device, draws: int, held: int = PENALTY_IMAGES
    ) -> None:
        import_torchvision()
        self._photographs = photographs
        self._seed = seed
        self._device = device
        self._held = held
        self._choices = math.ceil(draws / held)
        self._drawn = 0
        self._reader = ThreadPoolExecutor(1, "photographs")
        self._next: Future[ImageSet] | None = self._reader.submit(self._read, 0)

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw an image on the device, uint8 (3, 256, 256), gray with a probability of 0.3.

        Raises:
            MethodError: There are no photographs.
            Exception: Whatever kept the photographs from being read.
        """
        from torchvision.transforms.v2.functional import rgb_to_grayscale

        if self._drawn % self._held == 0 and self._next is not None:
            self._images = self._take(self._next.result())
        self._drawn += 1
        image = self._images[int(torch.randint(len(self._images), (), generator=generator))]
        gray = float(torch.rand((), generator=generator)) < 0.3
        return rgb_to_grayscale(image, num_output_channels=3) if gray else image

    def close(self) -> None:
        """Wait for the thread to end; it reads no further choice."""
        self._reader.shutdown(cancel_futures=True)

    def _take(self, images: ImageSet) -> ResidentImages:
        """Hold a choice of photographs and have the next one read, if there are others and they will be drawn."""
        if len(images) == 0:
            raise MethodError(f"no photographs for the pretraining penalty in {self._photographs.identity}")
        following = self._drawn // self._held + 1
        more = len(images) == self._held and following < self._choices
        self._next = self._reader.submit(self._read, following) if more else None
        return ResidentImages(images, self._device, PENALTY_BYTES)

    def _read(self, choice: int) -> ImageSet:
        return self._photographs.images(
            (2 * INPUT_SIZE[0], 2 * INPUT_SIZE[1]),
            center_crop=INPUT_SIZE,
            limit=self._held,
            seed=self._seed * 1_000_003 + choice,
        )
