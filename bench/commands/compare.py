"""``bench compare``: whether two rows of a run differ."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bench.commands.flags import console
from bench.option_types import Flag, Folder

if TYPE_CHECKING:
    from bench.comparison import Comparison, Difference, PartComparison
    from reports.content.tables import Field, Marks, Note, Table

FORMATS = ("md", "csv")


@dataclass(frozen=True)
class CompareOptions:
    """Everything that ``bench compare`` takes.

    Attributes:
        run: Run folder.
        first: A row: method, or METHOD#NUMBER or label of several.
        second: Another row, likewise.
        level: Of the intervals.
        resamples: Of the bootstrap, and exchanges of each test.
        seed: Of both.
        format: md or csv.
        out: File to write to.
    """

    run: Annotated[Folder, Flag(argument="RUN")]
    first: Annotated[str, Flag(argument="A")]
    second: Annotated[str, Flag(argument="B")]
    level: float = 0.95
    resamples: int = 1000
    seed: int = 0
    format: Annotated[str | None, Flag(default="that of --out's name, else a table")] = None
    out: Annotated[Folder | None, Flag(default="print")] = None


def compare(options: CompareOptions) -> int:
    """Say whether two rows of a run differ: paired, on the same images, with intervals and tests."""
    from bench.comparison import Resampling, compare_rows

    wanted, out = _format(options.format, options.out), options.out
    resampling = Resampling(options.level, options.resamples, options.seed)
    comparison = compare_rows(options.run, options.first, options.second, resampling)
    if wanted is None:
        from reports.rendering.terminal import render_table

        for table in comparison_tables(comparison):
            console().print(render_table(table))
        return 0
    text = markdown(comparison) if wanted == "md" else delimited(comparison)
    if out is None:
        typer.echo(text, nl=False)
    else:
        from results.atomic import write_atomically

        write_atomically(out, lambda file: file.write(text.encode()))
        typer.echo(str(out))
    return 0


def _format(given: str | None, out: Path | None) -> str | None:
    from bench.errors import unknown_name

    if given is None and out is None:
        return None
    wanted = given or (out.suffix.removeprefix(".") if out is not None else "")
    if wanted not in FORMATS:
        raise unknown_name("format", wanted, FORMATS)
    return wanted


def markdown(comparison: "Comparison") -> str:
    """Print the tables of a comparison as Markdown."""
    from reports.rendering.markdown import escape, render_table

    return "\n".join(f"**{escape(table.title)}**\n\n{render_table(table)}" for table in comparison_tables(comparison))


def comparison_tables(comparison: "Comparison") -> "Iterator[Table]":
    """Make the tables of a comparison: of each collection the differences, then the false-negative rates."""
    for part in comparison.parts:
        yield _difference_table(comparison, part)
        if any(scenario.false_negatives for scenario in part.scenarios):
            yield _false_negative_table(comparison, part)


def _difference_table(comparison: "Comparison", part: "PartComparison") -> "Table":
    from reports.content.tables import Column, Field, Marks, Table

    marks = Marks()
    rows = [
        (Field(scenario.scenario), *_fields(difference, marks))
        for scenario in part.scenarios
        for difference in scenario.differences
    ]
    rows += [(Field(f"mean over {len(part.scenarios)}"), *_fields(difference, marks)) for difference in part.means]
    level = f"{100 * comparison.resampling.level:g} %"
    numeric = ("A", "B", "A − B", f"{level} from", "to", "p")
    columns = (Column("Scenario"), Column("Metric"), *(Column(title, numeric=True) for title in numeric))
    notes = (*_notes(comparison, part), *marks.notes())
    title = f"{part.title}: {comparison.first.label} (A) against {comparison.second.label} (B)"
    return Table(title, columns, tuple(rows), notes)


def _fields(difference: "Difference", marks: "Marks") -> "tuple[Field, ...]":
    from reports.content.tables import UNDEFINED, Field
    from reports.content.vocabulary import metric_title, percent

    values = [UNDEFINED if value is None else percent(value) for value in (difference.first, difference.second)]
    reason = (marks.of(difference.reason),) if difference.reason else ()
    interval = difference.interval
    ends = (UNDEFINED, UNDEFINED) if interval is None else (_points(interval.low), _points(interval.high))
    value = UNDEFINED if difference.value is None else _points(difference.value)
    p_value = UNDEFINED if difference.p_value is None else _p_value(difference.p_value)
    texts = (metric_title(difference.metric), *values, value, *ends)
    return (*map(Field, texts), Field(p_value, reason))


def _points(difference: float) -> str:
    """Print a difference of fractions in percentage points, with its sign."""
    text = f"{100 * abs(difference):.2f}"
    sign = "" if float(text) == 0 else "+" if difference > 0 else "−"
    return sign + text


def _p_value(value: float) -> str:
    return f"{value:.3f}" if value >= 0.0005 else "< 0.001"


def _notes(comparison: "Comparison", part: "PartComparison") -> "Iterator[Note]":
    from reports.content.tables import Note, count

    resampling = comparison.resampling
    for letter, variant in (("A", comparison.first), ("B", comparison.second)):
        yield Note(letter, "; ".join((variant.label, *variant.notes)))
    for note in part.notes:
        yield Note("", note)
    seeds = sorted({seed for scenario in part.scenarios for seed in scenario.seeds})
    tests = sum(difference.p_value is not None for difference in _all_differences(part))
    texts = [
        f"Percent, mean over {count(len(seeds), 'seed')}; differences in percentage points.",
        f"Intervals: paired stratified bootstrap over the test images, {resampling.resamples} resamples; the defect "
        "regions follow their images, the thresholds of AU-PRO and the trainings are held as they are.",
        "p, two-sided, of no difference: image AU-ROC by exchanging the methods' ranks of an image (Bandos et al., "
        "Statistics in Medicine 2005), AU-PRO by flipping the signs of an image's differences (Fisher 1935), "
        f"{resampling.resamples} exchanges or all; means by Wilcoxon's signed-rank test over scenarios (Demšar, JMLR "
        "2006).",
        f"The p-values are not corrected for their number, {tests} in this table: where nothing differs, one in twenty "
        "is below 0.05 by chance. Multiply by that number (Bonferroni) before calling one a difference.",
    ]
    for text in texts:
        yield Note("", text)
    if comparison.left_out:
        yield Note("", f"Left out, as only one of the two has them: {'; '.join(comparison.left_out)}.")


def _all_differences(part: "PartComparison") -> "Iterable[Difference]":
    return [*(difference for scenario in part.scenarios for difference in scenario.differences), *part.means]


def _false_negative_table(comparison: "Comparison", part: "PartComparison") -> "Table":
    from bench.comparison import FALSE_POSITIVE_RATES
    from reports.content.tables import Column, Field, Note, Table
    from reports.content.vocabulary import percent

    rows = []
    for scenario in part.scenarios:
        if scenario.false_negatives:
            for index, variant in enumerate((comparison.first, comparison.second)):
                rates = [(rate.first, rate.second)[index] for rate in scenario.false_negatives]
                rows.append((Field(scenario.scenario), Field(variant.label), *(Field(percent(rate)) for rate in rates)))
    heads = [Column(f"at FPR {100 * rate:g} %", numeric=True) for rate in FALSE_POSITIVE_RATES]
    note = Note(
        "",
        "Percent of the anomalous test images that are missed where at most that share of the normal ones is called "
        "anomalous. The threshold is the best one for these very images: a bound for any that is chosen beforehand.",
    )
    title = f"{part.title}: false-negative rates"
    return Table(title, (Column("Scenario"), Column("Method"), *heads), tuple(rows), (note,))


class _Line(NamedTuple):
    """A difference and where it was found; ``scenario`` is empty for a mean over scenarios."""

    collection: str
    scenario: str
    seeds: tuple[int, ...]
    difference: "Difference"


def delimited(comparison: "Comparison") -> str:
    """Print a comparison as CSV: fractions in full precision, a line per metric, means with an empty scenario."""
    from reports.rendering.delimited import Columns, write_csv

    first, second = comparison.first.label, comparison.second.label
    columns: Columns[_Line] = {
        "collection": lambda line: line.collection,
        "scenario": lambda line: line.scenario,
        "seeds": lambda line: " ".join(map(str, line.seeds)),
        "metric": lambda line: line.difference.metric,
        "first": lambda _: first,
        "second": lambda _: second,
        "first_value": lambda line: line.difference.first,
        "second_value": lambda line: line.difference.second,
        "difference": lambda line: line.difference.value,
        "low": lambda line: line.difference.interval.low if line.difference.interval else None,
        "high": lambda line: line.difference.interval.high if line.difference.interval else None,
        "level": lambda line: line.difference.interval.level if line.difference.interval else None,
        "p_value": lambda line: line.difference.p_value,
        "reason": lambda line: line.difference.reason or None,
    }
    return write_csv(columns, _lines(comparison))


def _lines(comparison: "Comparison") -> "Iterator[_Line]":
    from bench.comparison import Difference

    for part in comparison.parts:
        for scenario in part.scenarios:
            rates = [
                Difference(f"false_negative_rate@{rate.false_positive_rate:g}", rate.first, rate.second)
                for rate in scenario.false_negatives
            ]
            for difference in (*scenario.differences, *rates):
                yield _Line(part.title, scenario.scenario, scenario.seeds, difference)
        for difference in part.means:
            yield _Line(part.title, "", (), difference)
