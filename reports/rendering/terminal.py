"""The tables that the command line prints at the end of a run."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from reports.content.selection import select
from reports.content.tables import Field, Table, accuracy_table, available_metrics, failure_table
from reports.content.vocabulary import summary_metrics
from results.record import Record


def summary_table(records: Sequence[Record]) -> Group:
    """Summarise some records for the terminal: of each collection detection and localisation, then the failed cells.

    What must be said of rows and collections stands under each table. Print it with a rich console.
    """
    selection = select((record, None) for record in records)
    tables = [accuracy_table(part, summary_metrics(available_metrics(part.results))) for part in selection.parts]
    failures = failure_table(selection.results)
    return Group(*(render_table(table) for table in (*tables, *([failures] if failures.rows else []))))


def render_table(table: Table) -> Group:
    """Show a table, and its notes below it."""
    shown = RichTable(box=SIMPLE_HEAD, title=Text(table.title, "bold"), title_justify="left", pad_edge=False)
    for column in table.columns:
        shown.add_column(Text(column.title), justify="right" if column.numeric else "left")
    for row in table.rows:
        shown.add_row(*(_field(field) for field in row))
    notes = [f"{note.mark}: {note.text}" if note.mark else note.text for note in table.notes]
    return Group(shown, *(Text(note, "dim") for note in notes), Text(""))


def _field(field: Field) -> Text:
    marks = f" ({','.join(field.marks)})" if field.marks else ""
    return Text.assemble((field.text, "bold" if field.best else ""), (marks, "dim"))
