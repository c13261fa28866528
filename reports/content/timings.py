"""What a report says of timings: latency and throughput by device, costs, production lines, what is no measurement."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from results.published import published_efficiencies, published_latencies
from results.store import RECORD_FILE
from results.timing_record import Reason
from results.timing_rows import Device, Estimate, TimingRow, TimingRows, make_rows
from results.timing_store import read_timings

_THROUGHPUT_BATCH = 16
_COSTS = ("Parameters, M", "GFLOP", "Memory, MB")


@dataclass(frozen=True)
class TimingSelection:
    """The timings of a report.

    Attributes:
        rows: That are shown.
        invalid: That are no measurement.
        left_out: What is not shown, and why, one sentence each.
    """

    rows: tuple[TimingRow, ...]
    invalid: tuple[TimingRow, ...]
    left_out: tuple[str, ...]

    @property
    def gpus(self) -> list[TimingRow]:
        """Rows of GPUs."""
        return [row for row in self.rows if row.device.is_gpu]

    @property
    def cpus(self) -> list[TimingRow]:
        """Rows of processors, which never stand beside those of GPUs."""
        return [row for row in self.rows if not row.device.is_gpu]


NO_TIMINGS = TimingSelection((), (), ())


def select_timings(paths: Sequence[Path]) -> TimingSelection:
    """Read the timings in files, run folders or any folders, and make rows of them.

    Raises:
        results.errors.ResultError: One cannot be read.
    """
    files = read_timings(paths)
    rows: TimingRows = make_rows(files.records)
    return TimingSelection(rows.rows, rows.invalid, (*files.notes, *rows.left_out))


def holds_only_timings(path: Path) -> bool:
    """Whether a path is a file of timings, or a folder with such files and without a cell's record."""
    if path.is_file():
        return True
    has_records = next(path.glob(f"cells/*/{RECORD_FILE}"), None) is not None
    return not has_records and next(path.rglob("*.jsonl"), None) is not None


def timing_tables(timings: TimingSelection) -> dict[str, Table]:
    """Every table of the timings, by the stem of its file."""
    tables: dict[str, Table] = {}
    for protocol in sorted({row.setting.protocol for row in timings.gpus}):
        own = [row for row in timings.gpus if row.setting.protocol == protocol and row.setting.mode != "line"]
        single = [row for row in own if row.setting.batch == 1]
        batched = [row for row in own if row.setting.batch == _THROUGHPUT_BATCH]
        if single:
            tables[f"timing-{protocol}-latency"] = _by_device(
                f"Latency in ms per image, protocol {protocol}", single, lambda row: row.latency
            )
        if batched:
            tables[f"timing-{protocol}-throughput"] = _by_device(
                f"Throughput in images/s at batch size {_THROUGHPUT_BATCH}, protocol {protocol}",
                batched,
                lambda row: row.throughput,
            )
    for number, device in enumerate(sorted({row.device for row in timings.cpus}), start=1):
        own = [row for row in timings.cpus if row.device == device and row.setting.mode != "line"]
        if own:
            tables[f"timing-cpu-{number}"] = _cpu_table(device, own)
    lines = [row for row in timings.rows if row.setting.mode == "line"]
    if lines:
        tables["timing-line"] = _line_table(lines)
    if timings.rows:
        tables["timing-costs"] = _cost_table(timings.rows)
        tables |= _published(timings)
    if timings.invalid:
        tables["timing-invalid"] = _invalid_table(timings.invalid)
    return tables


def milliseconds(value: float | None) -> str:
    """Print a number with three digits that mean something, and no exponent."""
    if value is None:
        return UNDEFINED
    decimals = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:,.{decimals}f}"


def estimate_text(estimate: Estimate) -> str:
    """Print a value with its standard deviation over processes, or with its interval."""
    value = milliseconds(estimate.value)
    if estimate.deviation is not None:
        return f"{value} ± {milliseconds(estimate.deviation)}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{milliseconds(estimate.low)}, {milliseconds(estimate.high)}]"


def device_title(device: Device) -> str:
    """Name a device: GPU, its part and power limit, or processor and threads; with what tells machines apart."""
    if not device.is_gpu:
        return (
            f"{device.name}, {device.threads} {'thread' if device.threads == 1 else 'threads'} ({device.machine[:4]})"
        )
    limit = f", {device.power_limit_watts} W" if device.power_limit_watts else ""
    return f"{device.name}{f' {device.part}' if device.part else ''}{limit} ({device.machine[:4]})"


def setting_text(row: TimingRow) -> str:
    """How a row was run, in short: ``eager, fp16, 256×256``."""
    setting = row.setting
    return f"{setting.backend}, {setting.precision}, {setting.input_size[0]}×{setting.input_size[1]}"


def row_label(row: TimingRow, marks: Marks) -> Field:
    """The method, with marks that lead to what distinguishes it from its paper's configuration."""
    return Field(row.subject.title, tuple(marks.of(text) for text in row.subject.deviations))


def _by_device(title: str, rows: Sequence[TimingRow], value: Callable[[TimingRow], Estimate]) -> Table:
    """A line per method and setting, a column per device."""
    devices = sorted({row.device for row in rows})
    marks = Marks()
    lines: dict[tuple[str, str, str], dict[Device, TimingRow]] = {}
    for row in rows:
        variant = "; ".join(row.subject.deviations)
        lines.setdefault((row.subject.title, variant, setting_text(row)), {})[row.device] = row
    body = []
    for (_, _, setting), by_device in sorted(lines.items()):
        fields = [row_label(next(iter(by_device.values())), marks), Field(setting)]
        for device in devices:
            timed = by_device.get(device)
            fields.append(
                Field(UNDEFINED) if timed is None else Field(estimate_text(value(timed)), _reasons(timed, marks))
            )
        body.append(tuple(fields))
    columns = (
        Column("Method"),
        Column("Setting"),
        *(Column(device_title(device), numeric=True) for device in devices),
    )
    return Table(title, columns, tuple(body), (*_about(rows), *marks.notes()))


def _cpu_table(device: Device, rows: Sequence[TimingRow]) -> Table:
    marks, body = Marks(), []
    for row in sorted(rows, key=lambda row: (row.subject.title.casefold(), setting_text(row), row.setting.batch)):
        passes = [record.sampling.count for record in row.records]
        body.append(
            (
                row_label(row, marks),
                Field(setting_text(row)),
                Field(str(row.setting.batch)),
                Field(estimate_text(row.latency)),
                Field(estimate_text(row.cpu)),
                Field(milliseconds(row.bound("p90_bound"))),
                Field(milliseconds(row.bound("p99_bound"))),
                Field(estimate_text(row.throughput)),
                Field(f"{len(passes)} × {min(passes):,}"),
                Field(row.verdict.status, _reasons(row, marks)),
            )
        )
    numbers = ("Batch", "ms per pass", "CPU ms", "p90 ≤", "p99 ≤", "images/s", "Processes × passes")
    columns = (
        Column("Method"),
        Column("Setting"),
        *(Column(title, numeric=True) for title in numbers),
        Column("Verdict"),
    )
    bounds = Note("", "p90 ≤ and p99 ≤: bounds of the percentiles at 99 % confidence, where there are passes enough.")
    title = f"{device_title(device)}, protocol {', '.join(sorted({row.setting.protocol for row in rows}))}"
    return Table(title, columns, tuple(body), (*_about(rows), bounds, *marks.notes()))


def _line_table(rows: Sequence[TimingRow]) -> Table:
    marks, body = Marks(), []
    for row in rows:
        lines = [record.line for record in row.records if record.line is not None]
        missed, triggers = sum(line.missed for line in lines), sum(line.triggers for line in lines)
        rates = [line.sustainable_rate for line in lines]
        sustainable = None if None in rates else min(rate for rate in rates if rate is not None)
        body.append(
            (
                row_label(row, marks),
                Field(f"{device_title(row.device)}, {setting_text(row)}"),
                Field(f"{lines[0].rate:g}"),
                Field(f"{lines[0].deadline_ms:g}"),
                Field(f"{missed:,} of {triggers:,}"),
                Field(f"{100 * max(line.miss_bound for line in lines):.3g} %"),
                Field(str(max(line.greatest_backlog for line in lines))),
                Field("not shown" if sustainable is None else f"{sustainable:.4g}"),
                Field(row.verdict.status, _reasons(row, marks)),
            )
        )
    numbers = ("Images/s", "Deadline, ms", "Missed", "Miss ≤", "Backlog", "Sustainable/s")
    columns = (
        Column("Method"),
        Column("Where"),
        *(Column(title, numeric=True) for title in numbers),
        Column("Verdict"),
    )
    note = Note(
        "",
        "Triggers are fixed in advance; a response counts from its trigger. Miss ≤: bound of the probability at 95 % "
        "confidence, the largest of the processes. Sustainable: highest rate at which at most one miss in 10,000 is "
        "shown; that takes 29,956 passes.",
    )
    return Table("Production line", columns, tuple(body), (note, *marks.notes()))


def _cost_table(rows: Sequence[TimingRow]) -> Table:
    """What one image costs whatever runs it, in the shape of the paper's Table 15."""
    marks = Marks()
    body: dict[tuple[str, ...], tuple[Field, ...]] = {}
    for row in rows:
        subject = row.subject
        key = (subject.title, *subject.deviations, f"{row.setting.input_size}", f"{subject.memory_bank}")
        memory = row.reserved_bytes if row.setting.batch == 1 and row.setting.backend == "eager" else None
        if key in body and memory is None:
            continue
        body[key] = (
            row_label(row, marks),
            Field(f"{row.setting.input_size[0]}×{row.setting.input_size[1]}"),
            Field(_with_bank(subject.parameters / 1e6, subject.memory_bank / 1e6)),
            Field(_with_search(subject.flops, subject.search_flops)),
            Field(UNDEFINED if memory is None else f"{memory / 1e6:,.0f}"),
        )
    columns = (Column("Method"), Column("Image"), *(Column(title, numeric=True) for title in _COSTS))
    note = Note(
        "",
        "Per image at batch size 1. Parameters: of the networks, + values in a memory bank. GFLOP: two per "
        "multiplication with addition, by PyTorch's profiler, + those of the search in the memory bank; resizing "
        "counts nothing. Memory: peak of what the allocator reserves on a GPU, MB = 10^6 bytes.",
    )
    return Table("Costs", columns, tuple(line for _, line in sorted(body.items())), (note, *marks.notes()))


def _with_bank(networks: float, bank: float) -> str:
    return f"{networks:.3f}" + (f" + {bank:.3f}" if bank else "")


def _with_search(flops: int | None, search: int) -> str:
    if flops is None:
        return UNDEFINED
    return f"{flops / 1e9:,.3f}" + (f" + {search / 1e9:,.3f}" if search else "")


def _published(timings: TimingSelection) -> dict[str, Table]:
    """What papers say of the methods that were timed, in tables of their own."""
    methods = {row.subject.method for row in timings.rows}
    tables = {}
    costs = [one for one in published_efficiencies() if one.method in methods]
    if costs:
        columns = (
            Column("Method"),
            *(Column(title, numeric=True) for title in ("Parameters, M", "GFLOP", "Memory, MB")),
        )
        body = []
        for one in costs:
            bank = f" + {one.memory_bank:g}" if one.memory_bank else ""
            search = " + kNN" if one.memory_bank else ""
            fields = (f"{one.parameters:g}{bank}", f"{one.flops:,g}{search}", f"{one.memory_mb:,g}{search}")
            body.append((Field(one.title), *map(Field, fields)))
        notes = tuple(Note("", f"{source}.") for source in sorted({f"{one.source}, {one.device}" for one in costs}))
        tables["timing-costs-published"] = Table("Costs, published", columns, tuple(body), notes)
    latencies = [one for one in published_latencies() if one.method in methods]
    if latencies:
        devices = list(dict.fromkeys(one.device for one in latencies))
        by_place = {(one.title, one.device): one.latency_ms for one in latencies}
        lines = tuple(
            (Field(title), *(Field(milliseconds(by_place.get((title, device)))) for device in devices))
            for title in dict.fromkeys(one.title for one in latencies)
        )
        heads = (Column("Method"), *(Column(device, numeric=True) for device in devices))
        sources = tuple(Note("", f"{source}.") for source in sorted({one.source for one in latencies}))
        tables["timing-latency-published"] = Table("Latency in ms per image, published", heads, lines, sources)
    return tables


def _invalid_table(rows: Sequence[TimingRow]) -> Table:
    columns = (Column("Method"), Column("Where"), Column("Batch", numeric=True), Column("Why"))
    body = tuple(
        (
            Field(row.subject.title),
            Field(f"{device_title(row.device)}, {row.setting.protocol}, {row.setting.mode}, {setting_text(row)}"),
            Field(str(row.setting.batch)),
            Field("; ".join(_reason_text(reason) for reason in row.verdict.reasons if reason.status == "INVALID")),
        )
        for row in rows
    )
    return Table("No measurements", columns, body, (Note("", "Timed, and not what they claim to be."),))


def _reasons(row: TimingRow, marks: Marks) -> tuple[str, ...]:
    return tuple(marks.of(f"SUSPECT: {_reason_text(reason)}") for reason in row.verdict.reasons)


def _reason_text(reason: Reason) -> str:
    return f"{reason.text} ({reason.check})"


def _about(rows: Iterable[TimingRow]) -> tuple[Note, ...]:
    """What a caption says: region, clock, what the number is, code."""
    rows = list(rows)
    regions = sorted({f"{row.setting.region}, by {row.setting.clock}" for row in rows})
    adaptive = {row.setting.protocol == "rigorous" for row in rows}
    kind = {
        True: "Median of the processes' medians' mean with its 95 % interval between processes.",
        False: "Mean over processes of each one's mean, ± standard deviation over processes.",
    }
    code = sorted({row.code for row in rows})
    return (
        Note("", f"Timed: {'; '.join(regions)}."),
        *(Note("", kind[one]) for one in sorted(adaptive)),
        Note("", f"Code: {', '.join(code)}."),
    )
