"""Exact metrics for visual anomaly detection: numpy arrays in, numbers out.

Compiled code is loaded on the first evaluation; importing this package costs little more than numpy.
"""

from metrics.errors import MetricError
from metrics.images import ImageMetrics, evaluate_images
from metrics.maps import Subset, UpsampledMaps
from metrics.pixels import PixelMetrics, Quartiles, Regions, evaluate_pixels
from metrics.saturated import (
    Defect,
    LocoMetrics,
    SaturatedMetrics,
    evaluate_loco,
    evaluate_saturated,
    loco_halves,
    saturation_pixels,
)

__all__ = [
    "Defect",
    "ImageMetrics",
    "LocoMetrics",
    "MetricError",
    "PixelMetrics",
    "Quartiles",
    "Regions",
    "SaturatedMetrics",
    "Subset",
    "UpsampledMaps",
    "evaluate_images",
    "evaluate_loco",
    "evaluate_pixels",
    "evaluate_saturated",
    "loco_halves",
    "saturation_pixels",
]
