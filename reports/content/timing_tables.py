"""Tables of timings: latency and throughput by device, processors, production lines, what is no measurement."""

from collections.abc import Callable, Sequence

from reports.content.tables import OTHER, UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import (
    TimingSelection,
    about,
    common_code,
    estimate_text,
    joined,
    milliseconds,
    reason_marks,
    reason_text,
    row_label,
    setting_text,
    setting_texts,
)
from results.timing_rows import LAUNCH_BOUND, Device, Estimate, TimingRow, compare_rows, host_shares

_THROUGHPUT_BATCH = 16


def device_tables(timings: TimingSelection) -> dict[str, Table]:
    """Latency and throughput of all GPUs, one table per protocol and mode, by the stem of its file."""
    tables: dict[str, Table] = {}
    kinds = {(row.setting.protocol, row.setting.mode) for row in timings.gpus if row.setting.mode != "line"}
    for protocol, mode in sorted(kinds):
        own = [row for row in timings.gpus if (row.setting.protocol, row.setting.mode) == (protocol, mode)]
        single = [row for row in own if row.setting.batch == 1]
        batched = [row for row in own if row.setting.batch == _THROUGHPUT_BATCH]
        stem, words = (f"timing-{protocol}", f"protocol {protocol}")
        if mode != "request":
            stem, words = f"{stem}-{mode}", f"{words}, {mode}"
        # Passes of a stream overlap: how long one takes is no latency.
        if single and mode != "stream":
            title = f"Latency in ms per image, {words}"
            tables[f"{stem}-latency"] = _by_device(title, timings, single, lambda row: row.latency, least=True)
        if batched:
            title = f"Throughput in images/s at batch size {_THROUGHPUT_BATCH}, {words}"
            tables[f"{stem}-throughput"] = _by_device(title, timings, batched, lambda row: row.throughput, least=False)
    return tables


def _by_device(
    title: str,
    timings: TimingSelection,
    rows: Sequence[TimingRow],
    value: Callable[[TimingRow], Estimate],
    *,
    least: bool,
) -> Table:
    """A line per method and setting, a column per device; the least or the greatest of each column is bold."""
    columns, settings, code, marks = timings.columns(rows), setting_texts(rows), common_code(rows), Marks()
    lines: dict[str, dict[Device, TimingRow]] = {}
    for row in sorted(rows, key=lambda row: (row.subject.title.casefold(), settings[row.identity])):
        lines.setdefault(row.identity, {})[row.device] = row
    best = {
        column: _fastest([row for row in rows if row.device in own], value, least) for column, own in columns.items()
    }
    body = []
    for identity, by_device in lines.items():
        fields = [row_label(next(iter(by_device.values())), marks), Field(settings[identity])]
        for title_of_column, own in columns.items():
            timed = [row for device, row in sorted(by_device.items()) if device in own]
            if not timed:
                fields.append(Field(UNDEFINED))
                continue
            reasons = dict.fromkeys(mark for row in timed for mark in reason_marks(row, marks))
            daggers = (OTHER,) if any(row.code != code for row in timed) else ()
            text = estimate_text(joined([value(row) for row in timed]))
            fields.append(Field(text, (*daggers, *reasons), len(own) == 1 and timed[0] in best[title_of_column]))
        body.append(tuple(fields))
    heads = (Column("Method"), Column("Setting"), *(Column(column, numeric=True) for column in columns))
    notes = list(about(rows))
    if any(field.best for line in body for field in line):
        notes.append(Note("", "Bold: fastest of its column, and what is not shown to be slower."))
    if any(len(own) > 1 for own in columns.values()):
        notes.append(Note("", "Of several machines: median [least, greatest]."))
    return Table(title, heads, tuple(body), (*notes, *marks.notes()))


def _fastest(rows: Sequence[TimingRow], value: Callable[[TimingRow], Estimate], least: bool) -> list[TimingRow]:
    """The fastest VALID row and those that it is not shown to be faster than; none of fewer than two."""
    valid = [row for row in rows if row.verdict.status == "VALID"]
    if len(valid) < 2:
        return []
    first = min(valid, key=lambda row: value(row).value if least else -value(row).value)
    others = [row for row in valid if row is not first]
    comparisons = [(row, compare_rows(row, first)) for row in others]
    return [first, *(row for row, seen in comparisons if seen.low is not None and seen.word != "slower")]


def host_table(timings: TimingSelection, device: Device) -> Table | None:
    """What the host adds to what a GPU takes; ``None`` where no row was timed both as requests and without the host."""
    shares = host_shares([row for row in timings.gpus if row.device == device])
    settings, marks, body = setting_texts([share.request for share in shares]), Marks(), []
    for share in sorted(
        shares, key=lambda share: (share.request.subject.title.casefold(), share.request.setting.batch)
    ):
        row, bound = share.request, share.launch_bound
        values = (share.device_ms, share.transfer_ms, share.overhead_ms, share.enqueue_ms)
        reasons = dict.fromkeys((*reason_marks(row, marks), *reason_marks(share.device, marks)))
        body.append(
            (
                row_label(row, marks),
                Field(f"{row.setting.protocol}, {settings[row.identity]}"),
                Field(str(row.setting.batch)),
                Field(milliseconds(share.wall_ms), tuple(reasons)),
                *(Field(milliseconds(value)) for value in values),
                Field(UNDEFINED if bound is None else "yes" if bound else "no"),
            )
        )
    numbers = ("Batch", "Request, ms", "Device, ms", "Transfer, ms", "Host, ms", "Enqueue, ms")
    columns = (
        *(Column("Method"), Column("Setting")),
        *(Column(title, numeric=True) for title in numbers),
        Column("Launch-bound"),
    )
    note = Note(
        "",
        "Means of the processes' medians. Request: by the host's clock. Device: replays of a CUDA graph of the same "
        "pass. Transfer: of the images, among the parts of a pass. Host: what remains of a request. Enqueue: until the "
        f"host has handed the pass over; launch-bound if that is over {LAUNCH_BOUND:.0%} of the device's time.",
    )
    title = f"{timings.title(device)}: host and device"
    return Table(title, columns, tuple(body), (note, *marks.notes())) if body else None


def processor_table(timings: TimingSelection, device: Device) -> Table | None:
    """Every row of a processor but those of production lines; ``None`` if there is none."""
    rows = [row for row in timings.cpus if row.device == device and row.setting.mode != "line"]
    if not rows:
        return None
    marks, body, code, settings = Marks(), [], common_code(rows), setting_texts(rows)
    for row in sorted(rows, key=lambda row: (row.subject.title.casefold(), settings[row.identity], row.setting.batch)):
        passes = [record.sampling.count for record in row.records]
        daggers = (OTHER,) if row.code != code else ()
        body.append(
            (
                row_label(row, marks),
                Field(settings[row.identity]),
                Field(str(row.setting.batch)),
                Field(estimate_text(row.latency)),
                Field(estimate_text(row.cpu)),
                Field(milliseconds(row.bound("p90_bound"))),
                Field(milliseconds(row.bound("p99_bound"))),
                Field(estimate_text(row.throughput)),
                Field(f"{len(passes)} × {min(passes):,}"),
                Field(row.verdict.status, (*daggers, *reason_marks(row, marks))),
            )
        )
    numbers = ("Batch", "ms per pass", "CPU ms", "p90 ≤", "p99 ≤", "images/s", "Processes × passes")
    columns = (
        Column("Method"),
        Column("Setting"),
        *(Column(title, numeric=True) for title in numbers),
        Column("Verdict"),
    )
    bounds = Note(
        "",
        "CPU ms: of all threads, mean of the processes' medians with its 95 % interval. p90 ≤ and p99 ≤: bounds of the "
        "percentiles at 99 % confidence, the largest of the processes, where there are passes enough.",
    )
    title = f"{timings.title(device)}, protocol {', '.join(sorted({row.setting.protocol for row in rows}))}"
    return Table(title, columns, tuple(body), (*about(rows), bounds, *marks.notes()))


def line_table(timings: TimingSelection, rows: Sequence[TimingRow]) -> Table | None:
    """What production lines have seen, of some rows; ``None`` if none was timed."""
    marks, body = Marks(), []
    for row in rows:
        if row.setting.mode != "line":
            continue
        lines = [record.line for record in row.records if record.line is not None]
        missed, triggers = sum(line.missed for line in lines), sum(line.triggers for line in lines)
        rates = [line.sustainable_rate for line in lines]
        sustainable = None if None in rates else min(rate for rate in rates if rate is not None)
        body.append(
            (
                row_label(row, marks),
                Field(f"{timings.title(row.device)}, {setting_text(row)}"),
                Field(f"{lines[0].rate:g}"),
                Field(f"{lines[0].deadline_ms:g}"),
                Field(f"{missed:,} of {triggers:,}"),
                Field(f"{100 * max(line.miss_bound for line in lines):.3g} %"),
                Field(str(max(line.greatest_backlog for line in lines))),
                Field("not shown" if sustainable is None else f"{sustainable:.4g}"),
                Field(row.verdict.status, reason_marks(row, marks)),
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
    return Table("Production line", columns, tuple(body), (note, *marks.notes())) if body else None


def invalid_table(timings: TimingSelection) -> Table | None:
    """What was timed and is no measurement, with the reasons; ``None`` if there is nothing."""
    columns = (Column("Method"), Column("Where"), Column("Batch", numeric=True), Column("Why"))
    body = tuple(
        (
            Field(row.subject.title),
            Field(f"{timings.title(row.device)}, {row.setting.protocol}, {row.setting.mode}, {setting_text(row)}"),
            Field(str(row.setting.batch)),
            Field("; ".join(reason_text(reason) for reason in row.verdict.reasons if reason.status == "INVALID")),
        )
        for row in timings.invalid
    )
    return (
        Table("No measurements", columns, body, (Note("", "Timed, and not what they claim to be."),)) if body else None
    )
