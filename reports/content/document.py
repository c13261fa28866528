"""What a report says, section by section, before any format."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reports.content.dot_plot import DotPlot, dot_plot
from reports.content.example_sheet import ExampleSheet, example_sheets
from reports.content.latency_plot import LatencyPlot, latency_plots
from reports.content.leakage import leakage_table
from reports.content.other_definitions import DefinitionSpread, definition_spread, definitions_table
from reports.content.provenance import Description, describe_rows, provenance, timing_machines
from reports.content.selection import NO_RESULTS, Part, Selection, unique_stems
from reports.content.tables import Table, accuracy_table, failure_table, published_table, scenario_table, stamps
from reports.content.thresholds import condition_table, threshold_table
from reports.content.timing_comparison import comparison_tables, ranking_table
from reports.content.timing_costs import cost_table, efficiency_table, price_table, published_tables
from reports.content.timing_curves import CurvePlot, batch_tables, curve_plots
from reports.content.timing_exactness import exactness_table
from reports.content.timing_stages import StagePlot, stage_plots, stage_table
from reports.content.timing_starts import start_table
from reports.content.timing_tables import device_tables, host_table, invalid_table, line_table, processor_table
from reports.content.timings import NO_TIMINGS, TimingSelection
from reports.content.trade_off import TradeOffPlot, trade_off_plots

_LOG_LINES = 12


Shown = DotPlot | ExampleSheet | DefinitionSpread | LatencyPlot | TradeOffPlot | CurvePlot | StagePlot
"""What a figure may show."""


@dataclass(frozen=True)
class Picture:
    """A figure of the report: its file without suffix, and what it shows."""

    stem: str
    shows: Shown

    @property
    def description(self) -> str:
        """What the figure shows and says in words, for those who do not see it."""
        notes = (note if note.endswith(".") else f"{note}." for note in self.shows.notes)
        return " ".join([f"{self.shows.title}.", *notes])


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
        sections: A collection each; then, where there are any, the states of epochs, other definitions of AU-PRO, and
            timings.
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


def make_document(selection: Selection, timings: TimingSelection = NO_TIMINGS) -> Document:
    """Say everything that the selected records and timings allow to say.

    Raises:
        results.errors.ResultError: An examples or definitions file is damaged.
    """
    return Document(
        left_out=(*selection.left_out, *timings.left_out),
        sections=(
            *(_section(part) for part in selection.parts),
            *_leakage(selection),
            *_other_definitions(selection),
            *timing_sections(timings, selection),
        ),
        failures=failure_table(selection.results),
        logs=tuple(_logs(selection)),
        rows=describe_rows(selection),
        provenance=(*provenance(selection), *timing_machines(timings)),
    )


def _section(part: Part) -> Section:
    tables = {f"tables/{part.stem}": accuracy_table(part)}
    published = published_table(part)
    if published is not None:
        tables[f"tables/{part.stem}-published"] = published
    for name, further in (("thresholds", threshold_table(part)), ("light", condition_table(part))):
        if further is not None:
            tables[f"tables/{part.stem}-{name}"] = further
    tables[f"tables/{part.stem}-scenarios"] = scenario_table(part)
    return Section(part.title, tables, tuple(_pictures(part)))


def _leakage(selection: Selection) -> Iterable[Section]:
    for part in selection.parts:
        table = leakage_table(part)
        if table is not None:
            yield Section(f"{part.title}: last state and best on test", {f"tables/{part.stem}-leakage": table}, ())


def _other_definitions(selection: Selection) -> Iterable[Section]:
    for part in selection.parts:
        spread = definition_spread(part)
        if spread is not None:
            picture = Picture(f"figures/{spread.stem}", spread)
            yield Section(spread.title, {f"tables/{spread.stem}": definitions_table(spread)}, (picture,))


def timing_sections(timings: TimingSelection, selection: Selection = NO_RESULTS) -> Iterable[Section]:
    """What all devices have in common, then a section per device.

    Args:
        timings: What was timed.
        selection: Results of the same methods, whose accuracy stands against their time.
    """
    kinds = {"gpu": timings.gpus, "cpu": timings.cpus}
    common = {
        **device_tables(timings),
        **{f"timing-line-{kind}": line_table(timings, rows) for kind, rows in kinds.items()},
        "timing-ranking": ranking_table(timings),
        "timing-costs": cost_table(timings),
        **{f"timing-prices-{kind}": price_table(timings, rows) for kind, rows in kinds.items()},
        **published_tables(timings),
        "timing-invalid": invalid_table(timings),
    }
    tables = {f"tables/{stem}": table for stem, table in common.items() if table is not None}
    if tables:
        yield Section("Timing", tables, _shown(latency_plots(timings)))
    for number, device in enumerate(timings.devices, start=1):
        protocols = sorted({row.setting.protocol for row in timings.rows if row.device == device})
        own = {
            f"{number}-processor": processor_table(timings, device),
            **{f"{number}-efficiency-{name}": efficiency_table(timings, device, name) for name in protocols},
            f"{number}-exactness": exactness_table(timings, device),
            **{f"{number}-batch-{end}": table for end, table in batch_tables(timings, device).items()},
            f"{number}-host": host_table(timings, device),
            f"{number}-start": start_table(timings, device),
            f"{number}-stages": stage_table(timings, device),
            **{f"{number}-compared-{end}": table for end, table in comparison_tables(timings, device).items()},
        }
        shown: dict[str, Shown] = {
            **trade_off_plots(selection, timings, device),
            **curve_plots(timings, device),
            **stage_plots(timings, device),
        }
        tables = {f"tables/timing-{stem}": table for stem, table in own.items() if table is not None}
        pictures = _shown({f"timing-{number}-{end}": plot for end, plot in shown.items()})
        if tables or pictures:
            yield Section(f"Timing: {timings.title(device)}", tables, pictures)


def _shown(plots: Mapping[str, Shown]) -> tuple[Picture, ...]:
    return tuple(Picture(f"figures/{stem}", plot) for stem, plot in plots.items())


def _pictures(part: Part) -> Iterable[Picture]:
    plot = dot_plot(part)
    if plot is not None:
        yield Picture(f"figures/{part.stem}-accuracy", plot)
    scenarios = sorted({result.record.scenario for result in part.results})
    for scenario, scenario_stem in unique_stems(scenarios).items():
        own = [result for result in part.results if result.record.scenario == scenario]
        for number, sheet in enumerate(example_sheets(own, stamps(own)), start=1):
            path = f"figures/{part.stem}-{scenario_stem}-examples" + (f"-{number}" if number > 1 else "")
            yield Picture(path, sheet)


def _logs(selection: Selection) -> Iterable[Log]:
    for result in selection.results:
        if result.record.failure is not None:
            record = result.record
            place = f"{result.variant.label}, {record.collection.name}/{record.scenario}, seed {record.seed}"
            lines = result.record.failure.log_tail.strip("\n").splitlines()[-_LOG_LINES:]
            yield Log(place, result.record.failure.reason, "\n".join(lines))
