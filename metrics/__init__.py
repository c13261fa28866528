"""Exact metrics for visual anomaly detection: numpy arrays in, numbers out.

Compiled code is loaded on the first evaluation; importing this package costs little more than numpy.
"""

from metrics.bootstrap import (
    Interval,
    PixelCounts,
    bootstrap_images,
    bootstrap_pixels,
    compare_images,
    compare_pixels,
    count_pixels,
)
from metrics.curves import Curve, Curves
from metrics.errors import MetricError
from metrics.images import ImageMetrics, evaluate_images
from metrics.maps import Subset, UpsampledMaps
from metrics.operating import (
    OperatingPoint,
    false_negative_rates,
    false_positive_rates,
    operating_points,
)
from metrics.pixels import PixelMetrics, evaluate_pixels
from metrics.saturated import (
    Defect,
    LocoMetrics,
    SaturatedMetrics,
    evaluate_loco,
    evaluate_saturated,
    loco_halves,
    saturation_pixels,
)
from metrics.sizes import Quartiles, Regions, minimum_detectable_area
from metrics.warm_up import warm_up

__all__ = [
    "Curve",
    "Curves",
    "Defect",
    "ImageMetrics",
    "Interval",
    "LocoMetrics",
    "MetricError",
    "OperatingPoint",
    "PixelCounts",
    "PixelMetrics",
    "Quartiles",
    "Regions",
    "SaturatedMetrics",
    "Subset",
    "UpsampledMaps",
    "bootstrap_images",
    "bootstrap_pixels",
    "compare_images",
    "compare_pixels",
    "count_pixels",
    "evaluate_images",
    "evaluate_loco",
    "evaluate_pixels",
    "evaluate_saturated",
    "false_negative_rates",
    "false_positive_rates",
    "loco_halves",
    "minimum_detectable_area",
    "operating_points",
    "saturation_pixels",
    "warm_up",
]
