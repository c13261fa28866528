"""What the dot plot of one collection shows: every cell's accuracy and the means."""

from dataclasses import dataclass

from reports.content.aggregate import Row, aggregate, compared
from reports.content.selection import Part
from reports.content.tables import OTHER, available_metrics, stamps
from reports.content.vocabulary import plot_metrics
from results.published import published_accuracies


@dataclass(frozen=True)
class DotPlot:
    """What the plot of one collection shows.

    Attributes:
        title: The collection and the unit.
        metrics: A panel each.
        rows: A line each, top to bottom.
        same: Which rows may be compared.
        scenarios: All scenarios, for their colours.
        published: By row and metric, the number from the paper.
        notes: What the figure must say.
    """

    title: str
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    same: tuple[bool, ...]
    scenarios: tuple[str, ...]
    published: dict[tuple[str, str], float]
    notes: tuple[str, ...]


def dot_plot(part: Part) -> DotPlot | None:
    """Gather what the plot of one collection shows; ``None`` if no cell has a metric to plot."""
    results, collection = part.results, part.collection
    metrics = plot_metrics(available_metrics(results))
    if not metrics or not any(result.ok for result in results):
        return None
    rows = aggregate(results, metrics)
    same = compared(rows) if len(rows) > 1 else [True]
    methods = {row.variant.method for row in rows}
    published = {
        (row.method, row.metric): row.value
        for row in published_accuracies()
        if row.collection == collection.name and row.method in methods and row.metric in metrics
    }
    notes = [*stamps(results)]
    if not all(same):
        notes.append(f"{OTHER}: other scenarios, seeds, protocol or train scale than the others, not to be compared.")
    if published:
        notes.append("Published values: means over the complete collection.")
    return DotPlot(
        title=f"{part.title}: accuracy in percent",
        metrics=metrics,
        rows=tuple(rows),
        same=tuple(same),
        scenarios=tuple(sorted({result.record.scenario for result in results})),
        published=published,
        notes=tuple(notes),
    )
