"""Exact metrics for visual anomaly detection: numpy arrays in, numbers out.

Compiled code is loaded on the first evaluation; importing this package costs little more than numpy.
"""

from metrics.bootstrap import (
    Interval,
    PixelCounts,
    bootstrap_images,
    bootstrap_pixels,
    count_pixels,
    mean_interval,
)
from metrics.curves import Curve, Curves
from metrics.errors import MetricError
from metrics.images import ImageMetrics, evaluate_images
from metrics.loco import HALVES, Halves, LocoMetrics, evaluate_loco, evaluate_loco_images, loco_halves
from metrics.maps import Subset, UpsampledMaps
from metrics.operating import (
    OperatingPoint,
    false_negative_rates,
    false_positive_rates,
    operating_points,
)
from metrics.paired import compare_images, compare_pixels, compare_regions, image_p_value, region_p_value
from metrics.pixels import PixelMetrics, evaluate_pixels, undefined_pixels
from metrics.saturated import (
    Defect,
    SaturatedMetrics,
    evaluate_saturated,
    saturation_pixels,
    undefined_saturated,
)
from metrics.sizes import Quartiles, Regions, minimum_detectable_area
from metrics.thresholded import Decisions, ExceedingPixels, count_exceeding, decide, exceeds
from metrics.thresholds import DeclaredRate, MeanPlusDeviations, NormalImages, ThresholdRule
from metrics.warm_up import warm_up

__all__ = [
    "HALVES",
    "Curve",
    "Curves",
    "Decisions",
    "DeclaredRate",
    "Defect",
    "ExceedingPixels",
    "Halves",
    "ImageMetrics",
    "Interval",
    "LocoMetrics",
    "MeanPlusDeviations",
    "MetricError",
    "NormalImages",
    "OperatingPoint",
    "PixelCounts",
    "PixelMetrics",
    "Quartiles",
    "Regions",
    "SaturatedMetrics",
    "Subset",
    "ThresholdRule",
    "UpsampledMaps",
    "bootstrap_images",
    "bootstrap_pixels",
    "compare_images",
    "compare_pixels",
    "compare_regions",
    "count_exceeding",
    "count_pixels",
    "decide",
    "evaluate_images",
    "evaluate_loco",
    "evaluate_loco_images",
    "evaluate_pixels",
    "evaluate_saturated",
    "exceeds",
    "false_negative_rates",
    "false_positive_rates",
    "image_p_value",
    "loco_halves",
    "mean_interval",
    "minimum_detectable_area",
    "operating_points",
    "region_p_value",
    "saturation_pixels",
    "undefined_pixels",
    "undefined_saturated",
    "warm_up",
]
