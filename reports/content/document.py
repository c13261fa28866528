"""What a report says, section by section, before any format."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from reports.content.other_definitions import definitions_table, gather_definitions
from reports.content.provenance import Description, describe_rows, provenance
from reports.content.selection import Part, Selection, unique_stems
from reports.content.tables import Table, accuracy_table, failure_table, published_table, scenario_table, stamps
from reports.rendering.figures.definition_spread import draw_definitions
from reports.rendering.figures.dots import dot_plot, draw_dots
from reports.rendering.figures.examples import draw_examples, example_sheets

_LOG_LINES = 12


@dataclass(frozen=True)
class Picture:
    """A figure of the report: where it goes (without suffix), what it shows in words, and how to draw it."""

    stem: str
    description: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """One collection, or what else is said of it: tables by the stem of their file, and figures."""

    title: str
    tables: dict[str, Table]
    figures: tuple[Picture, ...]


@dataclass(frozen=True)
class Log:
    """A failed cell, and the end of its log, if there is any."""

    place: str
    reason: str
    text: str


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        left_out: Which records it does not show, and why.
        sections: A collection each; then, where cells have them, other definitions of AU-PRO.
        failures: The cells that failed.
        logs: Why, and what they printed last.
        rows: What each row of the tables is.
        provenance: Protocol, data and machines.
    """

    left_out: tuple[str, ...]
    sections: tuple[Section, ...]
    failures: Table
    logs: tuple[Log, ...]
    rows: tuple[Description, ...]
    provenance: tuple[Description, ...]


def make_document(selection: Selection) -> Document:
    """Say everything that the selected records allow to say.

    Raises:
        results.errors.ResultError: An examples or definitions file is damaged.
    """
    return Document(
        left_out=selection.left_out,
        sections=(*(_section(part) for part in selection.parts), *_other_definitions(selection)),
        failures=failure_table(selection.cells),
        logs=tuple(_logs(selection)),
        rows=describe_rows(selection),
        provenance=provenance(selection),
    )


def _section(part: Part) -> Section:
    tables = {f"tables/{part.stem}": accuracy_table(part)}
    published = published_table(part)
    if published is not None:
        tables[f"tables/{part.stem}-published"] = published
    tables[f"tables/{part.stem}-scenarios"] = scenario_table(part)
    return Section(part.title, tables, tuple(_pictures(part)))


def _other_definitions(selection: Selection) -> Iterable[Section]:
    for part in selection.parts:
        found = gather_definitions(part)
        if found is not None:
            picture = Picture(
                f"figures/{found.stem}", describe(found.title, found.notes), partial(draw_definitions, found)
            )
            yield Section(found.title, {f"tables/{found.stem}": definitions_table(found)}, (picture,))


def _pictures(part: Part) -> Iterable[Picture]:
    plot = dot_plot(part)
    if plot is not None:
        yield Picture(f"figures/{part.stem}-accuracy", describe(plot.title, plot.notes), partial(draw_dots, plot))
    scenarios = sorted({cell.record.scenario for cell in part.cells})
    for scenario, scenario_stem in unique_stems(scenarios).items():
        own = [cell for cell in part.cells if cell.record.scenario == scenario]
        for number, sheet in enumerate(example_sheets(own, stamps(own)), start=1):
            path = f"figures/{part.stem}-{scenario_stem}-examples" + (f"-{number}" if number > 1 else "")
            yield Picture(path, describe(sheet.title, sheet.notes), partial(draw_examples, sheet))


def describe(title: str, notes: Iterable[str]) -> str:
    """Say in words what a figure shows and says, for those who do not see it."""
    return " ".join([f"{title}.", *(note if note.endswith(".") else f"{note}." for note in notes)])


def _logs(selection: Selection) -> Iterable[Log]:
    for cell in selection.cells:
        if cell.record.failure is not None:
            record = cell.record
            place = f"{cell.variant.label}, {record.collection.name}/{record.scenario}, seed {record.seed}"
            lines = cell.record.failure.log_tail.strip("\n").splitlines()[-_LOG_LINES:]
            yield Log(place, cell.record.failure.reason, "\n".join(lines))
