"""How tables and plots print the names of metrics, and which of them they show."""

from collections.abc import Collection

HALVES = ("structural/", "logical/")
"""How metrics of a half of a saturated collection begin."""

_VALUES = {"f1": "F1", "fpr": "FPR", "recall": "recall"}
_TITLES = {
    "image_au_roc": "Image AU-ROC",
    "image_average_precision": "Image AP",
    "image_f1_max": "Image F1-max",
    "au_pro": "AU-PRO",
    "au_spro": "AU-sPRO",
    "pixel_au_roc": "Pixel AU-ROC",
    "pixel_average_precision": "Pixel AP",
    "pixel_f1_max": "Pixel F1-max",
    "size_robustness": "Size robustness",
    **{
        f"{of}_{value}": f"{title} {_VALUES[value]}"
        for of, title in (("image", "Image"), ("pixel", "Pixel"), ("any_pixel", "Any-pixel"))
        for value in _VALUES
    },
    **{f"au_pro_q{quartile}": f"AU-PRO Q{quartile}" for quartile in range(1, 5)},
}

_TABLE = ("image_au_roc", "image_average_precision", "au_pro@0.3", "au_pro@0.05", "pixel_average_precision")
_LIGHT = ("regular/au_pro@0.05", "changed/au_pro@0.05")
# What the owners of a collection evaluate, where that is more than what every table shows.
_OF_COLLECTION = {"mvtec_ad_2": ("pixel_f1@mean+3sd", "any_pixel_f1@mean+3sd")}
_PLOT = ("image_au_roc", "au_pro@0.3")


def metric_title(metric: str, half: str = "") -> str:
    """Print a metric's name: ``structural/image_au_roc`` is ``Structural image AU-ROC``.

    Args:
        metric: Its name in the record.
        half: What to call the part it measures, where its name does not say it.
    """
    prefix, _, name = metric.rpartition("/")
    base, at, limit = name.partition("@")
    title = f"{_TITLES.get(base, base)}{at}{limit}"
    part = prefix or half
    if not part:
        return title
    return f"{part.capitalize()} {title[0].lower() + title[1:] if title[1:2].islower() else title}"


def is_saturated(available: Collection[str]) -> bool:
    """Whether metrics of these names come from a collection with saturation thresholds (the form of MVTec LOCO)."""
    return any("au_spro@" in metric for metric in available)


def table_metrics(available: Collection[str], collection: str = "") -> tuple[str, ...]:
    """The metrics that accuracy tables show, of those that the records have; the first if they have none.

    A saturated collection shows its structural and logical halves and then their mean; one whose test images were
    taken under several lights shows AU-PRO under the regular one and under the others.

    Args:
        available: What the records have.
        collection: Short name of the collection.
    """
    if not is_saturated(available):
        plain = (*_TABLE, *_LIGHT, *_OF_COLLECTION.get(collection, ()))
        return tuple(metric for metric in plain if metric in available) or _TABLE[:1]
    parts = (*HALVES, "")
    wanted = [part + metric for metric in ("image_au_roc", _saturated_metric(available)) for part in parts]
    return tuple(metric for metric in wanted if metric in available)


def summary_metrics(available: Collection[str]) -> tuple[str, ...]:
    """The metrics that the terminal shows, if the records have them: one of detection, one of localisation."""
    wanted = ("image_au_roc", _saturated_metric(available)) if is_saturated(available) else _PLOT
    return tuple(metric for metric in wanted if metric in available) or wanted


def plot_metrics(available: Collection[str]) -> tuple[str, ...]:
    """The metrics that the dot plot shows, of those that the records have: one of detection, one of localisation."""
    if not is_saturated(available):
        return tuple(metric for metric in _PLOT if metric in available)
    return tuple(metric for metric in table_metrics(available) if "/" in metric) or table_metrics(available)


def _saturated_metric(available: Collection[str]) -> str:
    """The localisation metric of a saturated collection: AU-sPRO@0.05, or the lowest limit there is."""
    limits = sorted(metric for metric in available if metric.startswith("au_spro@"))
    return "au_spro@0.05" if "au_spro@0.05" in limits or not limits else limits[0]


def percent(value: float) -> str:
    """Print a fraction as percent with one decimal: 0.9871 is ``98.7``."""
    return f"{100 * value:.1f}"
