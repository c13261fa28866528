"""Tables as plain values: what they say, before any format."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.content.aggregate import Mean, Row, aggregate, best_rows, compared
from reports.content.environments import environment_differences
from reports.content.selection import Part, Result
from reports.content.vocabulary import HALVES, metric_title, percent, table_metrics
from results.published import published_accuracies, published_speeds
from results.record import Collection

UNDEFINED = "–"
OTHER = "†"
_OTHER_NOTE = "other scenarios, seeds, protocol or train scale than the rows without the mark: not to be compared"


@dataclass(frozen=True)
class Column:
    """A column's head, and whether it holds numbers."""

    title: str
    numeric: bool = False


@dataclass(frozen=True)
class Field:
    """One place of a table: its text, marks that lead to notes, and whether it is the best of its column."""

    text: str
    marks: tuple[str, ...] = ()
    best: bool = False


@dataclass(frozen=True)
class Note:
    """A line under a table; without mark it concerns the whole table."""

    mark: str
    text: str


@dataclass(frozen=True)
class Table:
    """A table with its notes, independent of the format it will be printed in."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Field, ...], ...]
    notes: tuple[Note, ...]


@dataclass
class Marks:
    """Gives each distinct note a letter, in the order of appearance."""

    letters: dict[str, str] = field(default_factory=dict)

    def of(self, text: str) -> str:
        """Return the letter of a note."""
        return self.letters.setdefault(text, _letter(len(self.letters)))

    def notes(self) -> tuple[Note, ...]:
        """Return the notes with their letters."""
        return tuple(Note(letter, text) for text, letter in self.letters.items())


def _letter(index: int) -> str:
    head, tail = divmod(index, 26)
    return (_letter(head - 1) if head else "") + chr(ord("a") + tail)


def available_metrics(results: Sequence[Result]) -> set[str]:
    """Names of the metrics that any of the cells has or leaves undefined."""
    return {metric for result in results for metric in (*result.record.metrics, *result.record.undefined)}


def shown_metrics(part: Part) -> tuple[str, ...]:
    """The metrics that the accuracy tables of a collection show."""
    return table_metrics(available_metrics(part.results), part.collection.name)


def stamps(results: Sequence[Result]) -> tuple[str, ...]:
    """What every table and figure made of these cells must say."""
    notes = {result.record.collection.note for result in results if result.record.collection.note}
    data = {
        f"{result.record.scenario}: {result.record.data.note}"
        for result in results
        if result.record.data is not None and result.record.data.note
    }
    scales = {result.variant.train_scale for result in results}
    scaled = [f"train scale {scale:g}: {scale:g} × the training length of the method" for scale in sorted(scales - {1})]
    if scaled and len(scales) > 1:
        scaled = ["train scales differ between rows; rows marked with one are trained for that part of their length"]
    return (*sorted(notes), *sorted(data), *scaled)


def count(number: int, noun: str) -> str:
    """Print a number with its noun: ``1 seed``, ``3 seeds``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def coverage_text(row: Row, collection: Collection) -> str:
    """How much of the collection a row's mean is over: ``1 of 15 scenarios, 3 seeds``."""
    scenarios = len({scenario for scenario, _ in row.coverage})
    seeds = len({seed for _, seed in row.coverage})
    if collection.scenarios is None:
        return f"{count(scenarios, 'scenario')}, {count(seeds, 'seed')}"
    return f"{scenarios} of {count(collection.scenarios, 'scenario')}, {count(seeds, 'seed')}"


def mean_text(mean: Mean) -> str:
    """Print a mean in percent, with its standard deviation over seeds if there are several."""
    if mean.value is None:
        return UNDEFINED
    deviation = f" ± {percent(mean.deviation)}" if mean.deviation is not None else ""
    return percent(mean.value) + deviation


def accuracy_table(part: Part, metrics: Sequence[str] | None = None) -> Table:
    """Mean over the scenarios of one collection, one row per method and configuration.

    Args:
        part: The collection, or the scenarios of it that are evaluated alike.
        metrics: A column each; those that reports show of what the cells have when ``None``.
    """
    metrics = shown_metrics(part) if metrics is None else metrics
    rows = aggregate(part.results, metrics)
    marks = Marks()
    scales_differ = len({row.variant.train_scale for row in rows}) > 1
    same, best = compared(rows), best_values(part.collection, rows, metrics)
    fields = []
    for index, row in enumerate(rows):
        label = method_field(row, marks, scales_differ)
        coverage = Field(coverage_text(row, part.collection), _coverage_marks(row, len(rows), same[index], marks))
        values = [value_field(row, metric, best[metric][index], marks) for metric in metrics]
        fields.append((label, coverage, *values))
    columns = (Column("Method"), Column("Coverage"), *_metric_columns(metrics))
    notes = table_notes(rows, fields, marks, stamps(part.results))
    return Table(f"{part.title}, mean over scenarios", columns, tuple(fields), notes)


def scenario_table(part: Part) -> Table:
    """Each scenario of one collection apart, one row per scenario, method and configuration."""
    metrics = shown_metrics(part)
    marks = Marks()
    fields, all_rows = [], []
    scales_differ = len({result.variant.train_scale for result in part.results}) > 1
    for scenario in sorted({result.record.scenario for result in part.results}):
        rows = aggregate([result for result in part.results if result.record.scenario == scenario], metrics)
        same, best = compared(rows), best_values(part.collection, rows, metrics)
        for index, row in enumerate(rows):
            label = method_field(row, marks, scales_differ)
            seeds = Field(str(len(row.coverage)), _coverage_marks(row, len(rows), same[index], marks))
            values = [value_field(row, metric, best[metric][index], marks) for metric in metrics]
            fields.append((Field(scenario), label, seeds, *values))
        all_rows += rows
    head = (Column("Scenario"), Column("Method"), Column("Seeds", numeric=True))
    columns = (*head, *_metric_columns(metrics))
    notes = table_notes(all_rows, fields, marks, stamps(part.results))
    return Table(f"{part.title}, each scenario", columns, tuple(fields), notes)


def published_table(part: Part) -> Table | None:
    """What the papers say of the methods shown, on the complete collection; ``None`` if they say nothing."""
    methods = {result.variant.method for result in part.results}
    rows = [row for row in published_accuracies() if row.collection == part.collection.name and row.method in methods]
    available = {row.metric for row in rows}
    metrics = table_metrics(available | {metric for metric in available_metrics(part.results) if metric in available})
    if not rows:
        return None
    values = {(row.title, row.metric): row for row in rows if row.metric in metrics}
    speeds = {row.title: row for row in published_speeds()}
    marks = Marks()
    fields = []
    for title in dict.fromkeys(title for title, _ in sorted(values)):
        own = [values.get((title, metric)) for metric in metrics]
        sources = tuple(dict.fromkeys(marks.of(value.source) for value in own if value is not None))
        accuracy = [Field(percent(value.value) if value is not None else UNDEFINED) for value in own]
        speed = speeds.get(title)
        latency = Field(f"{speed.latency_ms:g}" if speed else UNDEFINED)
        throughput = Field(f"{speed.throughput:g}" if speed else UNDEFINED)
        fields.append((Field(title, sources), *accuracy, latency, throughput))
    columns = (
        Column("Method"),
        *_metric_columns(metrics),
        Column("Latency (ms)", numeric=True),
        Column("Throughput (images/s)", numeric=True),
    )
    devices = sorted({f"{row.device}, {row.precision}" for row in published_speeds()})
    note = Note(
        "",
        "Published numbers, percent, means over the complete collection; measured by others, never averaged with the "
        f"rows above. {UNDEFINED}: not published. Latency at batch size 1, throughput at 16, on {'; '.join(devices)}.",
    )
    title = f"{part.title}, published reference on the complete collection"
    return Table(title, columns, tuple(fields), (note, *marks.notes()))


def failure_table(results: Sequence[Result]) -> Table:
    """The cells that failed, with their reasons; without rows if none did."""
    rows = []
    for result in results:
        if result.record.failure is not None:
            record, failure = result.record, result.record.failure
            place = f"{record.collection.name}/{record.scenario}"
            texts = (result.variant.label, place, str(record.seed), failure.kind, failure.reason)
            rows.append(tuple(Field(text) for text in texts))
    heads = ("Method", "Scenario", "Seed", "Kind", "Reason")
    columns = tuple(Column(head, numeric=head == "Seed") for head in heads)
    return Table("Failed cells", columns, tuple(rows), ())


def best_values(collection: Collection, rows: Sequence[Row], metrics: Sequence[str]) -> dict[str, list[bool]]:
    """Tell, by metric, which rows to print bold; none for a collection with a note: like the demo, it has no winner."""
    if collection.note is not None:
        return {metric: [False] * len(rows) for metric in metrics}
    return {metric: best_rows(rows, metric) for metric in metrics}


def _metric_columns(metrics: Sequence[str]) -> tuple[Column, ...]:
    halved = {metric.partition("/")[2] for metric in metrics if metric.startswith(HALVES)}
    titles = [metric_title(metric, "mean" if metric in halved else "") for metric in metrics]
    return tuple(Column(title, numeric=True) for title in titles)


def method_field(row: Row, marks: Marks, scales_differ: bool) -> Field:
    """A row's method, with what its label must say, and whether its cells ran in different environments."""
    scale = row.variant.train_scale
    scaled = (f"train scale {scale:g}",) if scales_differ and scale != 1 else ()
    differences = environment_differences(result.record for result in row.results)
    mixed = (f"records of this row come from different environments: {differences}",) if differences else ()
    return Field(row.variant.label, tuple(marks.of(note) for note in (*scaled, *row.variant.notes, *mixed)))


def _coverage_marks(row: Row, rows: int, same: bool, marks: Marks) -> tuple[str, ...]:
    left_out = len(row.results) - row.failed - len(row.coverage)
    notes = [f"{row.failed} of {count(len(row.results), 'cell')} failed"] if row.failed else []
    if left_out:
        notes.append(f"{count(left_out, 'cell')} left out so that every seed averages the same scenarios")
    other = (OTHER,) if rows > 1 and not same else ()
    return (*other, *((marks.of("; ".join(notes)),) if notes else ()))


def value_field(row: Row, metric: str, best: bool, marks: Marks) -> Field:
    """A row's mean of a metric, with the reason where it has none, or not everywhere."""
    mean = row.means[metric]
    if mean.coverage == row.coverage and mean.value is not None:
        return Field(mean_text(mean), (), best)
    if not row.coverage:
        reason = "no seed has all scenarios" if any(result.ok for result in row.results) else "every cell failed"
        return Field(UNDEFINED, (marks.of(reason),))
    reason = f"{metric_title(metric)} undefined: {row.undefined(metric)}"
    if mean.value is not None:
        reason += f"; the mean is over {count(mean.scenarios, 'scenario')} and {count(mean.seeds, 'seed')}"
    return Field(mean_text(mean), (marks.of(reason),), best)


def table_notes(
    rows: Sequence[Row], fields: Sequence[tuple[Field, ...]], marks: Marks, stamped: Sequence[str]
) -> tuple[Note, ...]:
    """What stands under a table: what all of it must say, the units, then the marks of its fields."""
    several_seeds = any(len({seed for _, seed in row.coverage}) > 1 for row in rows)
    units = "Percent; mean ± standard deviation over seeds." if several_seeds else "Percent."
    places = [place for row in fields for place in row]
    bold = " Bold: best among rows of equal coverage." if any(place.best for place in places) else ""
    other = [Note(OTHER, _OTHER_NOTE)] if any(OTHER in place.marks for place in places) else []
    return (*(Note("", text) for text in (*stamped, units + bold)), *other, *marks.notes())
