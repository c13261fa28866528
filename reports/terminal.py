"""The table that the command line prints at the end of a run."""

from collections.abc import Sequence

from rich.table import Table as RichTable
from rich.text import Text

from reports.aggregate import aggregate, compared
from reports.selection import Cell, select
from reports.tables import OTHER, available_metrics, best_values, coverage_text, mean_text, stamps
from reports.vocabulary import is_saturated
from results.record import Collection, Record


def summary_table(records: Sequence[Record]) -> RichTable:
    """Summarise some records for the terminal: per collection and method, coverage, detection and localisation.

    Localisation is AU-PRO@0.3, for a saturated collection AU-sPRO@0.05. What must be said of a collection, and why
    cells failed, stands in the caption.
    """
    selection = select((record, None) for record in records)
    table = RichTable(title="Accuracy in percent", title_justify="left", caption_justify="left")
    table.add_column("Collection")
    table.add_column("Method")
    table.add_column("Coverage")
    for head in ("Image AU-ROC", "Localisation", "Failed"):
        table.add_column(head, justify="right")
    caption = []
    localisations = set()
    for collection in selection.collections:
        cells = selection.of(collection)
        localisation = "au_spro@0.05" if is_saturated(available_metrics(cells)) else "au_pro@0.3"
        localisations.add("AU-sPRO@0.05 (saturated)" if "spro" in localisation else "AU-PRO@0.3")
        _add_collection(table, collection, cells, ("image_au_roc", localisation))
        caption += [f"{collection.title}: {stamp}" for stamp in stamps(cells)]
    caption += [f"Localisation: {', '.join(sorted(localisations))}"] if localisations else []
    caption += _failures(selection.cells)
    table.caption = Text("\n".join(caption))
    return table


def _add_collection(table: RichTable, collection: Collection, cells: Sequence[Cell], metrics: tuple[str, str]) -> None:
    rows = aggregate(cells, metrics)
    same, best = compared(rows), best_values(collection, rows, metrics)
    for index, row in enumerate(rows):
        other = f" {OTHER}" if len(rows) > 1 and not same[index] else ""
        values = [Text(mean_text(row.means[metric]), "bold" if best[metric][index] else "") for metric in metrics]
        name = collection.title if index == 0 else ""
        failed = Text(str(row.failed), "red") if row.failed else Text("")
        coverage = Text(coverage_text(row, collection) + other)
        table.add_row(Text(name), Text(row.variant.label), coverage, *values, failed, end_section=row is rows[-1])


def _failures(cells: Sequence[Cell]) -> list[str]:
    return [
        f"{cell.variant.label} on {cell.record.collection.name}/{cell.record.scenario}, seed {cell.record.seed}, "
        f"failed: {cell.record.failure.reason}"
        for cell in cells
        if cell.record.failure is not None
    ]
