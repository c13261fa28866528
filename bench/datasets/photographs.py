"""A folder of everyday photographs: what a pretraining penalty or a distillation takes its images from."""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from bench.datasets.accounting import IMAGE_SUFFIXES
from bench.datasets.cache import Cache
from bench.datasets.images import decode_images
from bench.errors import DataError
from methods.detector import ImageSet


@dataclass(frozen=True)
class PhotographFolder:
    """All images under a folder, subfolders included; implements :class:`methods.detector.ImageSource`.

    Nothing is listed or decoded before it is asked for.

    Attributes:
        path: The folder.
        cache: Where decoded images are kept.
    """

    path: Path
    cache: Cache

    @cached_property
    def identity(self) -> str:
        """Name, number of images and fingerprint, such as ``photographs (1000 images, 3f9a0c21)``.

        The fingerprint covers relative names and file sizes, not contents: ImageNet has 150 GB.

        Raises:
            DataError: The folder is missing or holds no images.
        """
        lines = [f"{path.relative_to(self.path).as_posix()}\0{path.stat().st_size}\n" for path in self._files]
        fingerprint = hashlib.sha256("".join(lines).encode()).hexdigest()[:8]
        return f"{self.path.absolute().name} ({len(lines)} images, {fingerprint})"

    def check(self) -> None:
        """See whether there are images.

        Raises:
            DataError: The folder is missing or holds no images.
        """
        _ = self._files

    def images(
        self,
        size: tuple[int, int],
        *,
        center_crop: tuple[int, int] | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> ImageSet:
        """Decode the photographs, resized bilinearly to ``size`` and cropped to ``center_crop``.

        A choice from a larger folder is decoded into memory: the next one differs, and caching choice after choice
        of ImageNet would fill the disk.

        Args:
            size: Height and width that the whole photograph is resized to.
            center_crop: Height and width kept of the centre afterwards; everything when ``None``.
            limit: At most so many photographs, a random choice without replacement drawn from ``seed``, in random
                order. All, sorted by path, when ``None``.
            seed: Of that choice. The same arguments give the same images in the same order.

        Raises:
            DataError: The folder is missing or holds no images, or an image is damaged.
        """
        if limit is None:
            return ImageSet(decode_images(self._files, size, self.cache, center_crop=center_crop).pixels)
        chosen = np.random.default_rng(seed).permutation(len(self._files))[:limit]
        # Decoded in sorted order, so that a folder within the limit is decoded once for all seeds.
        paths = [self._files[index] for index in np.sort(chosen)]
        cache = replace(self.cache, enabled=self.cache.enabled and len(paths) == len(self._files))
        pixels = decode_images(paths, size, cache, center_crop=center_crop).pixels
        return ImageSet(pixels, np.argsort(np.argsort(chosen)).tolist())

    @cached_property
    def _files(self) -> list[Path]:
        if not self.path.is_dir():
            raise DataError(
                f"the folder of photographs {self.path} does not exist: pass a folder of JPEG or PNG images"
            )
        files = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(self.path, followlinks=True)
            for name in names
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        )
        if not files:
            raise DataError(f"there are no images under {self.path}: pass a folder of JPEG or PNG images")
        return files
