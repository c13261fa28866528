"""The pictures of the demo collection: views of real photographs, with defects drawn into some of them.

All pixel arrays are float (height, width), gray, 0-255. Shapes are drawn at four times the resolution and averaged
down, so their edges are antialiased; a pixel belongs to a defect when the shape covers at least half of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

Pixels = NDArray[np.float32]
Region = NDArray[np.bool_]

TEXTURE_SIZE = (256, 256)
TRAY_SIZE = (240, 320)

_VIEW_SIDE = (160.0, 176.0)
"""Side of a texture view in the photograph, pixels."""
_SLOTS = tuple((y, x) for y in (64.0, 176.0) for x in (58.0, 160.0, 262.0))
"""Where the coins lie on a tray: row, column."""
_GAPS = tuple((120.0, x) for x in (109.0, 211.0))
"""Where an extra coin fits between four of them."""
_COIN_RADIUS = 36.0
_COIN_TILE = 96
"""Side of a square that holds any coin, turned or not."""
_SLOT_RADIUS = 44.0
"""A coin lies anywhere within this distance of its slot, so a missing one is missing there."""
_OVERSAMPLING = 4

COIN_AREA = round(np.pi * _COIN_RADIUS**2)
"""Pixels of a coin: how many of an empty slot a detector must mark for full credit."""


@dataclass(frozen=True)
class Drawn:
    """A picture and the pixels that are wrong in it."""

    pixels: Pixels
    region: Region


@dataclass(frozen=True)
class Tray:
    """Six slots with a coin each, in the normal case.

    Attributes:
        pixels: The picture.
        coins: Row, column of the coins that lie in a slot.
        missing: The empty slots.
        extra: The coins that lie in no slot.
    """

    pixels: Pixels
    coins: tuple[tuple[float, float], ...]
    missing: tuple[Region, ...]
    extra: tuple[Region, ...]


@dataclass(frozen=True)
class Coin:
    """A coin cut out of the photograph: its pixels and its coverage 0-1, of equal square shape."""

    pixels: Pixels
    coverage: Pixels


def texture_view(photograph: Pixels, rng: Generator) -> Pixels:
    """Draw a slightly rotated, randomly mirrored square out of a photograph, at ``TEXTURE_SIZE``."""
    side, angle = rng.uniform(*_VIEW_SIDE), np.deg2rad(rng.uniform(-4, 4))
    reach = side / 2 * (abs(np.cos(angle)) + abs(np.sin(angle))) + 2
    height, width = photograph.shape
    center = rng.uniform(reach, height - reach), rng.uniform(reach, width - reach)
    view = _resample(photograph, center, side / TEXTURE_SIZE[0], angle, TEXTURE_SIZE)
    mirrored = view[:, ::-1] if rng.random() < 0.5 else view
    return _exposed(mirrored, rng)


def coins_and_background(photograph: Pixels) -> tuple[list[tuple[float, Coin]], Pixels]:
    """Cut the coins out of scikit-image's photograph of coins.

    Returns:
        Per coin its column in the photograph and its cut-out; and the photograph with the coins taken away.
    """
    from skimage.filters import sobel
    from skimage.segmentation import watershed

    markers = np.zeros(photograph.shape, dtype=np.int32)
    markers[photograph < 30] = 1
    markers[photograph > 150] = 2
    inside = ndimage.binary_fill_holes(watershed(sobel(photograph), markers) == 2)
    labels, _ = ndimage.label(ndimage.binary_opening(inside, iterations=2))
    coins = []
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        center_y, center_x = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
        half = max(rows.stop - rows.start, columns.stop - columns.start) // 2 + 4
        window = np.s_[center_y : center_y + 2 * half, center_x : center_x + 2 * half]
        coverage = ndimage.gaussian_filter(np.pad(labels == label, half).astype(np.float32), 0.7)
        coins.append((float(center_x), Coin(np.pad(photograph, half, mode="edge")[window], coverage[window])))
    return coins, _without(photograph, ndimage.binary_dilation(labels > 0, iterations=4))


def tray(coins: Sequence[Coin], background: Pixels, rng: Generator, *, missing: int = 0, extra: int = 0) -> Tray:
    """Lay coins on a piece of background: one in each slot but ``missing``, and ``extra`` ones between the slots."""
    height, width = background.shape
    scale = min(height / TRAY_SIZE[0], width / TRAY_SIZE[1]) * rng.uniform(0.85, 0.95)
    half = scale * TRAY_SIZE[0] / 2, scale * TRAY_SIZE[1] / 2
    center = rng.uniform(half[0], height - half[0]), rng.uniform(half[1], width - half[1])
    pixels = _resample(background, center, scale, 0.0, TRAY_SIZE)

    empty = set(rng.choice(len(_SLOTS), size=missing, replace=False).tolist())
    filled = [slot for index, slot in enumerate(_SLOTS) if index not in empty]
    gaps = [_GAPS[index] for index in rng.choice(len(_GAPS), size=extra, replace=False)]
    laid = rng.choice(len(coins), size=len(filled) + extra, replace=False)
    places = [(y + rng.uniform(-4, 4), x + rng.uniform(-4, 4)) for y, x in [*filled, *gaps]]
    regions = []
    for place, index in zip(places, laid, strict=True):
        layer = _laid_out(coins[index], place, rng)
        pixels = _blend(pixels, layer.pixels, layer.coverage)
        regions.append(layer.coverage >= 0.5)
    slots = tuple(_coverage(_disc(_SLOTS[index], _SLOT_RADIUS), TRAY_SIZE) >= 0.5 for index in sorted(empty))
    return Tray(_exposed(pixels, rng), tuple(places[: len(filled)]), slots, tuple(regions[len(filled) :]))


def scratch(pixels: Pixels, rng: Generator, center: tuple[float, float], length: float) -> Drawn:
    """A thin bent line, light or dark, that tapers off at both ends."""
    angle = rng.uniform(0, np.pi)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([along[1], -along[0]])
    start, end = -along * length / 2, along * length / 2
    bend = across * rng.uniform(-0.35, 0.35) * length
    t = np.linspace(0, 1, 60)[:, None]
    path = np.asarray(center) + (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    widths = rng.uniform(3.0, 4.5) * (0.35 + 0.65 * np.sin(np.pi * t[:, 0]))

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        for (y, x), width in zip(path * scale, widths * scale, strict=True):
            canvas.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)

    coverage = _coverage(draw, pixels.shape)
    level = rng.uniform(225, 245) if pixels.mean() < 110 or rng.random() < 0.5 else rng.uniform(15, 35)
    return Drawn(_blend(pixels, level + _grain(pixels, rng, 6), 0.9 * coverage), coverage >= 0.5)


def stain(pixels: Pixels, rng: Generator, center: tuple[float, float], radius: float) -> Drawn:
    """A spilled liquid: fills and darkens the surface, most at the rim; its texture shows through."""
    coverage = _coverage(_blob(rng, center, radius, roughness=0.22), pixels.shape)
    rim = coverage - np.minimum(coverage, ndimage.gaussian_filter(coverage, radius / 5))
    filled = _blend(pixels, ndimage.gaussian_filter(pixels, 1.5), 0.7 * coverage)
    darkness = rng.uniform(0.45, 0.55) + 0.35 * rim
    return Drawn(filled * (1 - coverage * darkness), coverage >= 0.5)


def hole(pixels: Pixels, rng: Generator, center: tuple[float, float], radius: float) -> Drawn:
    """A dark pit lit from the upper left: its lower right wall catches some light."""
    coverage = _coverage(_blob(rng, center, radius, roughness=0.15), pixels.shape)
    depth = max(2.0, radius / 4)
    lit = coverage * (1 - ndimage.shift(coverage, (-depth, -depth), order=1))
    wall = ndimage.gaussian_filter(lit, 0.8) * 0.55 * pixels.mean()
    return Drawn(_blend(pixels, 12 + wall + _grain(pixels, rng, 3), coverage), coverage >= 0.5)


def foreign_patch(pixels: Pixels, rng: Generator, center: tuple[float, float], radius: float, other: Pixels) -> Drawn:
    """A piece of another material, which throws a slight shadow to the lower right."""
    coverage = _coverage(_blob(rng, center, radius, roughness=0.10), pixels.shape)
    shadow = np.clip(ndimage.gaussian_filter(ndimage.shift(coverage, (2.5, 2.5), order=1), 1.5) - coverage, 0, 1)
    shaded = pixels * (1 - 0.35 * shadow)
    return Drawn(_blend(shaded, other, coverage), coverage >= 0.5)


_Draw = Callable[[ImageDraw.ImageDraw, int], None]


def _coverage(draw: _Draw, shape: tuple[int, ...]) -> Pixels:
    canvas = Image.new("L", (shape[1] * _OVERSAMPLING, shape[0] * _OVERSAMPLING))
    draw(ImageDraw.Draw(canvas), _OVERSAMPLING)
    return np.asarray(canvas.reduce(_OVERSAMPLING), dtype=np.float32) / np.float32(255)


def _disc(center: tuple[float, float], radius: float) -> _Draw:
    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        y, x, r = center[0] * scale, center[1] * scale, radius * scale
        canvas.ellipse((x - r, y - r, x + r, y + r), fill=255)

    return draw


def _blob(rng: Generator, center: tuple[float, float], radius: float, roughness: float) -> _Draw:
    theta = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    waves = range(2, 8)
    outline = 1 + sum(
        rng.normal(0, roughness / wave**0.8) * np.cos(wave * theta + rng.uniform(0, 2 * np.pi)) for wave in waves
    )
    squeeze, tilt = rng.uniform(0.75, 1.0), rng.uniform(0, np.pi)
    u, v = radius * outline * np.cos(theta), radius * outline * np.sin(theta) * squeeze
    x = center[1] + u * np.cos(tilt) - v * np.sin(tilt)
    y = center[0] + u * np.sin(tilt) + v * np.cos(tilt)

    def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
        canvas.polygon([(float(a) * scale, float(b) * scale) for a, b in zip(x, y, strict=True)], fill=255)

    return draw


def _laid_out(coin: Coin, place: tuple[float, float], rng: Generator) -> Coin:
    """Scale a coin to the common radius, turn it a little and put it on a layer of the tray's size."""
    radius = np.sqrt(coin.coverage.sum() / np.pi)
    scale = radius / (_COIN_RADIUS * rng.uniform(0.96, 1.04))
    angle = np.deg2rad(rng.uniform(-20, 20))
    middle = (coin.pixels.shape[0] / 2, coin.pixels.shape[1] / 2)
    top, left = (int(coordinate) - _COIN_TILE // 2 for coordinate in place)
    tile = np.s_[top : top + _COIN_TILE, left : left + _COIN_TILE]
    layers = []
    for source in (coin.pixels, coin.coverage):
        layer = np.zeros(TRAY_SIZE, dtype=np.float32)
        at = (place[0] - top, place[1] - left)
        layer[tile] = _resample(source, middle, scale, angle, (_COIN_TILE, _COIN_TILE), put_at=at)
        layers.append(layer)
    return Coin(layers[0], np.clip(layers[1], 0, 1))


def _without(photograph: Pixels, objects: Region) -> Pixels:
    """Replace objects by what surrounds them, with the film's grain."""
    kept = (~objects).astype(np.float32)
    smooth = ndimage.gaussian_filter(photograph * kept, 10) / np.maximum(ndimage.gaussian_filter(kept, 10), 1e-6)
    grain = np.where(objects, 0, photograph - ndimage.gaussian_filter(photograph, 2))
    spread = float(np.median(np.abs(grain[~objects]))) * 1.5
    noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(0, 2.5 * spread, photograph.shape), 0.7)
    return np.where(objects, smooth + noise, photograph).astype(np.float32)


def _resample(
    source: Pixels,
    center: tuple[float, float],
    scale: float,
    angle: float,
    size: tuple[int, int],
    put_at: tuple[float, float] | None = None,
) -> Pixels:
    """Take ``size`` pixels of ``source`` so that ``center`` comes to lie at ``put_at``, by default the middle.

    ``scale`` is in source pixels per pixel; outside of ``source`` is 0.
    """
    target_y, target_x = put_at or (size[0] / 2, size[1] / 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    matrix = (
        cos, -sin, center[1] - cos * target_x + sin * target_y,
        sin, cos, center[0] - sin * target_x - cos * target_y,
    )  # fmt: skip
    image = Image.fromarray(source.astype(np.float32))
    moved = image.transform((size[1], size[0]), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(moved, dtype=np.float32)


def _blend(pixels: Pixels, other: Pixels, coverage: Pixels) -> Pixels:
    return (pixels * (1 - coverage) + other * coverage).astype(np.float32)


def _exposed(pixels: Pixels, rng: Generator) -> Pixels:
    """As another exposure of a camera: a little lighter or darker, with noise."""
    return (pixels * rng.uniform(0.94, 1.06) + _grain(pixels, rng, 1.5)).astype(np.float32)


def _grain(pixels: Pixels, rng: Generator, spread: float) -> Pixels:
    return rng.normal(0, spread, pixels.shape).astype(np.float32)
