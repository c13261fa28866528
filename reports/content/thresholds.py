"""What thresholds chosen on normal images promise, and what they do: a table apart from the threshold-free metrics."""

from collections.abc import Sequence

from reports.content.aggregate import Row, aggregate
from reports.content.selection import Part, Result
from reports.content.tables import (
    UNDEFINED,
    Column,
    Field,
    Marks,
    Note,
    Table,
    best_values,
    count,
    coverage_text,
    method_field,
    stamps,
    table_notes,
    value_field,
)
from reports.content.vocabulary import is_saturated, percent
from results.record import Threshold

_PROMISE = (
    "Declared: the false-positive rate that the rule keeps on average if test images are drawn as the normal images "
    "that it was chosen on. Realised: that of the normal test images. FPR of: what these are shares of. Image F1 of a "
    "threshold on pixels: an image is called anomalous as soon as one of its pixels is."
)
_HALVES = "F1 is the mean over structural and logical anomalies, each with all normal images."


def thresholds_of(results: Sequence[Result]) -> dict[tuple[str, str], list[Threshold]]:
    """The thresholds of cells by level and rule, in the order of the rules."""
    by_rule: dict[tuple[str, str], list[Threshold]] = {}
    for result in results:
        for threshold in result.record.thresholds:
            by_rule.setdefault((threshold.level, threshold.rule), []).append(threshold)
    return dict(sorted(by_rule.items(), key=lambda item: item[0][0]))


def realised_metric(threshold: Threshold) -> str:
    """The metric that is the threshold's realised rate, for example ``pixel_fpr@mean+3sd``."""
    return f"{'any_pixel' if _counts_images(threshold) else threshold.level}_fpr@{threshold.rule}"


def f1_metrics(threshold: Threshold) -> tuple[str, str | None]:
    """The metrics that are F1 at a threshold: of images and, if it is one on pixels, of pixels."""
    if threshold.level == "image":
        return f"image_f1@{threshold.rule}", None
    return f"any_pixel_f1@{threshold.rule}", f"pixel_f1@{threshold.rule}"


def threshold_table(part: Part) -> Table | None:
    """Each rule's thresholds on one collection, mean over scenarios; ``None`` without any.

    There is a row per method with a threshold on any scenario; a note says why the others have none.
    """
    by_rule = thresholds_of(part.results)
    if not by_rule:
        return None
    having = {result.variant for result in part.results if result.record.thresholds}
    results = [result for result in part.results if result.variant in having]
    marks = Marks()
    scales_differ = len({result.variant.train_scale for result in results}) > 1
    fields: list[tuple[Field, ...]] = []
    all_rows: list[Row] = []
    for (level, rule), thresholds in by_rule.items():
        of_rule = thresholds[0]
        realised, scored = realised_metric(of_rule), f1_metrics(of_rule)
        f1 = [metric for metric in scored if metric is not None]
        rows = aggregate(results, [realised, *f1])
        best = best_values(part.collection, rows, f1)
        declared = of_rule.declared_false_positive_rate
        for index, row in enumerate(rows):
            fields.append(
                (
                    Field(f"{'image score' if level == 'image' else 'pixels'}, {rule}"),
                    method_field(row, marks, scales_differ),
                    Field(coverage_text(row, part.collection)),
                    Field(of_rule.rate_of),
                    Field(UNDEFINED if declared is None else percent(declared)),
                    value_field(row, realised, False, marks),
                    *(
                        Field(UNDEFINED) if name is None else value_field(row, name, best[name][index], marks)
                        for name in scored
                    ),
                )
            )
        all_rows += rows
    heads = ("Declared FPR", "Realised FPR", "Image F1", "Pixel F1")
    columns = (
        *(Column(head) for head in ("Threshold", "Method", "Coverage", "FPR of")),
        *(Column(head, numeric=True) for head in heads),
    )
    return Table(
        f"{part.title}, at thresholds chosen on normal images",
        columns,
        tuple(fields),
        (*table_notes(all_rows, fields, marks, stamps(results)), *_explanations(part)),
    )


def _explanations(part: Part) -> list[Note]:
    chosen: dict[str, list[int]] = {}
    for result in part.results:
        for threshold in result.record.thresholds:
            chosen.setdefault(threshold.calibrated_on, []).append(threshold.images)
    on = [f"{_range(numbers)} {images}" for images, numbers in sorted(chosen.items())]
    available = {metric for result in part.results for metric in result.record.metrics}
    texts = [f"Thresholds were chosen on {'; '.join(on)} per cell, never on test images.", *_without(part), _PROMISE]
    return [Note("", text) for text in (*texts, *([_HALVES] if is_saturated(available) else []))]


def _without(part: Part) -> list[str]:
    """Which rules have chosen nothing anywhere, which methods have no threshold at all, and why."""
    rules: dict[str, dict[str, None]] = {}
    methods: dict[str, dict[str, None]] = {}
    chosen = {rule for _, rule in thresholds_of(part.results)}
    having = {result.variant for result in part.results if result.record.thresholds}
    for result in part.results:
        for metric, reason in result.record.undefined.items():
            kind, _, rule = metric.partition("@")
            if kind not in ("image_f1", "any_pixel_f1"):
                continue
            if result.variant not in having:
                methods.setdefault(reason, {})[result.variant.label] = None
            elif rule not in chosen:
                rules.setdefault(reason, {})[rule] = None
    return [
        *(f"No threshold by {', '.join(names)}: {reason}." for reason, names in rules.items()),
        *(f"No threshold for {', '.join(names)}: {reason}." for reason, names in methods.items()),
    ]


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"


def _counts_images(threshold: Threshold) -> bool:
    return threshold.level == "pixel" and threshold.rate_of == "images"


def condition_table(part: Part) -> Table | None:
    """The accuracy on the test images of each light or view alone; ``None`` where a collection has but one."""
    conditions = _conditions(part.results)
    if not conditions:
        return None
    marks = Marks()
    scales_differ = len({result.variant.train_scale for result in part.results}) > 1
    fields: list[tuple[Field, ...]] = []
    all_rows: list[Row] = []
    for condition, prefix in (("all", ""), *((condition, f"{condition}/") for condition in conditions)):
        metrics = [f"{prefix}image_au_roc", f"{prefix}au_pro@0.05"]
        rows = aggregate([result for result in part.results if _knows(result, prefix)], metrics)
        best = best_values(part.collection, rows, metrics)
        for index, row in enumerate(rows):
            values = [value_field(row, metric, best[metric][index], marks) for metric in metrics]
            coverage = Field(coverage_text(row, part.collection))
            fields.append((Field(condition), method_field(row, marks, scales_differ), coverage, *values))
        all_rows += rows
    columns = (
        *(Column(head) for head in ("Light or view", "Method", "Coverage")),
        *(Column(head, numeric=True) for head in ("Image AU-ROC", "AU-PRO@0.05")),
    )
    number = count(len([name for name in conditions if name != "changed"]), "condition")
    explanation = (
        f"Test images of {number}: normal and anomalous images of one condition, as if there were no others"
        f"{'; changed: all but the regular ones' if 'changed' in conditions else ''}."
    )
    notes = (*table_notes(all_rows, fields, marks, stamps(part.results)), Note("", explanation))
    return Table(f"{part.title}, under changed light", columns, tuple(fields), notes)


def _conditions(results: Sequence[Result]) -> list[str]:
    """The conditions that metrics are known of, in the order in which the records have them."""
    suffix = "/image_au_roc"
    names = [metric.removesuffix(suffix) for result in results for metric in result.record.metrics if suffix in metric]
    return [name for name in dict.fromkeys(names) if name not in ("structural", "logical")]


def _knows(result: Result, prefix: str) -> bool:
    """Whether a cell has the condition; one that failed counts with all, as it would have."""
    return not result.ok or not prefix or f"{prefix}image_au_roc" in result.record.metrics
