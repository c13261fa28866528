"""The same anomaly maps under other definitions of AU-PRO: which published number may be compared with which.

None of these values is a result. They stand in a section, a figure and a file of their own.
"""

from dataclasses import dataclass
from statistics import fmean

from reports.content.aggregate import Place, complete_grid
from reports.content.selection import Part, Result
from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table, count, stamps
from reports.content.variants import Variant
from reports.content.vocabulary import percent
from results.definition_values import DefinitionValue, read_definitions

WARNING = "Not results: what other definitions make of the same maps, to tell which numbers may be compared."


@dataclass(frozen=True)
class DefinitionRow:
    """One method's maps under every definition.

    Attributes:
        variant: The method in its configuration.
        values: By definition the mean over the coverage; ``None`` where a cell has no value.
        coverage: Scenarios and seeds averaged.
    """

    variant: Variant
    values: dict[str, float | None]
    coverage: frozenset[Place]


@dataclass(frozen=True)
class DefinitionSpread:
    """One collection's maps under every definition.

    Attributes:
        title: The collection.
        stem: Of file names.
        definitions: Each once, in their order, the exact one first.
        rows: A method each.
        notes: What table and figure must say.
    """

    title: str
    stem: str
    definitions: tuple[DefinitionValue, ...]
    rows: tuple[DefinitionRow, ...]
    notes: tuple[str, ...]


def definitions_of(result: Result) -> list[DefinitionValue]:
    """What is kept beside a cell's record; empty if nothing is.

    Raises:
        results.errors.ResultError: The file is damaged.
    """
    return read_definitions(result.directory) if result.directory is not None and result.ok else []


def definition_spread(part: Part) -> DefinitionSpread | None:
    """Average a collection's values, per row of its tables; ``None`` if no cell has any.

    Raises:
        results.errors.ResultError: A file is damaged.
    """
    stored = [(result, values) for result in part.results if (values := definitions_of(result))]
    if not stored:
        return None
    definitions = {value.name: value for _, values in stored for value in values}
    by_variant: dict[Variant, dict[Place, list[DefinitionValue]]] = {}
    for result, values in stored:
        by_variant.setdefault(result.variant, {})[(result.record.scenario, result.record.seed)] = values
    rows = tuple(_row(variant, places, tuple(definitions)) for variant, places in by_variant.items())
    return DefinitionSpread(
        title=f"{part.title}: the same maps under other definitions of AU-PRO",
        stem=f"{part.stem}-definitions",
        definitions=tuple(definitions.values()),
        rows=rows,
        notes=(WARNING, *stamps([result for result, _ in stored])),
    )


def _row(variant: Variant, places: dict[Place, list[DefinitionValue]], names: tuple[str, ...]) -> DefinitionRow:
    coverage = complete_grid(places)
    by_place = {place: {value.name: value.value for value in places[place]} for place in sorted(coverage)}
    values: dict[str, float | None] = {}
    for name in names:
        own = [value for place_values in by_place.values() if (value := place_values.get(name)) is not None]
        values[name] = fmean(own) if own and len(own) == len(coverage) else None
    return DefinitionRow(variant, values, coverage)


def definitions_table(spread: DefinitionSpread) -> Table:
    """A line per definition; per method its value, and the difference from the first definition's, the exact one."""
    marks = Marks()
    exact = spread.definitions[0].name
    lines = []
    for definition in spread.definitions:
        meaning = f"{definition.description}; source: {definition.source}"
        name = Field(definition.name, (marks.of(meaning),))
        lines.append((name, *(Field(_value(row, definition.name, exact)) for row in spread.rows)))
    columns = (Column("Definition"), *(Column(row.variant.label, numeric=True) for row in spread.rows))
    covered = sorted({_coverage(row) for row in spread.rows})
    units = f"Percent, mean over {' or '.join(covered)}; in brackets the difference from {exact}."
    notes = (*(Note("", text) for text in (*spread.notes, units)), *marks.notes())
    return Table("AU-PRO by definition", columns, tuple(lines), notes)


def _value(row: DefinitionRow, name: str, exact: str) -> str:
    value, reference = row.values[name], row.values[exact]
    if value is None:
        return UNDEFINED
    if name == exact or reference is None:
        return percent(value)
    difference = percent(abs(value - reference))
    sign = "" if float(difference) == 0 else "+" if value > reference else "−"
    return f"{percent(value)} ({sign}{difference})"


def _coverage(row: DefinitionRow) -> str:
    scenarios, seeds = ({place[index] for place in row.coverage} for index in (0, 1))
    return f"{count(len(scenarios), 'scenario')} and {count(len(seeds), 'seed')}"
