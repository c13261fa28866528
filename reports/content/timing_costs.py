"""What an image costs: parameters, operations, time, memory, money; and what papers published of that."""

from collections.abc import Sequence
from dataclasses import replace

from reports.content.prices import Price, price_of
from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import (
    TimingSelection,
    about,
    estimate_text,
    milliseconds,
    reason_marks,
    row_label,
    setting_texts,
)
from results.published import published_efficiencies, published_latencies, published_speeds
from results.timing_rows import Device, TimingRow

_THROUGHPUT_BATCH = 16
_PARAMETERS, _FLOPS = "Parameters, M", "GFLOP"
_MEMORY = "Memory, MB"
_LATENCY, _THROUGHPUT = "Latency, ms", "Throughput, images/s"
_MJ_PER_IMAGE_AND_KWH_PER_MILLION = 3600.0
"""Millijoules per image that are a kilowatt-hour per million images."""
_COUNTED = (
    "Parameters: of the networks, + values in a memory bank. GFLOP: per image, two per multiplication with addition, "
    "by PyTorch's profiler, + those of the search in the memory bank; resizing counts nothing."
)


def cost_table(timings: TimingSelection) -> Table | None:
    """What does not depend on a device; ``None`` without timings."""
    marks = Marks()
    body: dict[tuple[Field, ...], None] = {}
    for row in sorted(
        timings.counted,
        key=lambda row: (
            row.subject.title.casefold(),
            row.subject.deviations,
            row.setting.input_size,
            row.subject.memory_bank,
        ),
    ):
        size = f"{row.setting.input_size[0]}×{row.setting.input_size[1]}"
        body[row_label(row, marks), Field(size), Field(_with_bank(row)), Field(_with_search(row))] = None
    columns = (Column("Method"), Column("Image"), Column(_PARAMETERS, numeric=True), Column(_FLOPS, numeric=True))
    return Table("Costs", columns, tuple(body), (Note("", _COUNTED), *marks.notes())) if body else None


def efficiency_table(timings: TimingSelection, device: Device, protocol: str) -> Table | None:
    """What one GPU needs for an image, in the shape of the EfficientAD paper's Table 15; ``None`` without rows."""
    rows = [
        row
        for row in timings.gpus
        if (row.device, row.setting.protocol, row.setting.mode) == (device, protocol, "request")
    ]
    by_identity: dict[str, dict[int, TimingRow]] = {}
    for row in rows:
        by_identity.setdefault(row.identity, {})[row.setting.batch] = row
    settings, marks, body = setting_texts(rows), Marks(), []
    for identity, by_batch in by_identity.items():
        single, batched = by_batch.get(1), by_batch.get(_THROUGHPUT_BATCH)
        if single is None and batched is None:
            continue
        row = single or next(iter(by_batch.values()))
        body.append(
            (
                row_label(row, marks),
                Field(settings[identity]),
                Field(estimate_text(single.latency), reason_marks(single, marks)) if single else Field(UNDEFINED),
                Field(estimate_text(batched.throughput), reason_marks(batched, marks)) if batched else Field(UNDEFINED),
                Field(_with_bank(row)),
                Field(_with_search(row)),
                Field(_megabytes(single.reserved_bytes if single else None)),
            )
        )
    if not body:
        return None
    numbers = (_LATENCY, _THROUGHPUT, _PARAMETERS, _FLOPS, _MEMORY)
    columns = (Column("Method"), Column("Setting"), *(Column(title, numeric=True) for title in numbers))
    text = (
        f"Latency and memory at batch size 1, throughput at {_THROUGHPUT_BATCH}. {_COUNTED} Memory: peak of what the "
        "allocator reserves, MB = 10^6 bytes."
    )
    title = f"{timings.title(device)}: efficiency, protocol {protocol}"
    return Table(title, columns, tuple(body), (*about(rows), Note("", text), *marks.notes()))


def price_table(timings: TimingSelection, rows: Sequence[TimingRow]) -> Table | None:
    """What a million images cost, of some rows: money with a price of the device, energy where that was measured.

    ``None`` if there is neither.
    """
    best: dict[tuple[str, Device], TimingRow] = {}
    for row in rows:
        place = (row.identity, row.device)
        known = row.energy is not None or price_of(row.device.name, timings.prices) is not None
        if row.setting.mode not in ("line", "device") and known:
            best[place] = max(best.get(place, row), row, key=lambda row: row.throughput.value)
    settings, marks, body = setting_texts(list(best.values())), Marks(), []
    for row in sorted(best.values(), key=lambda row: (row.device, row.subject.title.casefold())):
        price = price_of(row.device.name, timings.prices)
        body.append(
            (
                row_label(row, marks),
                Field(f"{timings.title(row.device)}, {row.setting.protocol}, {row.setting.mode}"),
                Field(settings[row.identity]),
                Field(str(row.setting.batch)),
                Field(estimate_text(row.throughput), reason_marks(row, marks)),
                Field(_money(price) if price else UNDEFINED),
                Field(milliseconds(price.per_million(row.throughput.value) if price else None)),
                Field(estimate_text(row.energy) if row.energy else UNDEFINED),
                Field(milliseconds(row.energy.value / _MJ_PER_IMAGE_AND_KWH_PER_MILLION if row.energy else None)),
            )
        )
    numbers = ("Batch", "images/s", "Per hour", "Per million images", "mJ per image", "kWh per million images")
    columns = (
        *(Column(title) for title in ("Method", "Where", "Setting")),
        *(Column(title, numeric=True) for title in numbers),
    )
    text = "At full load, the batch size of highest throughput, and the user's prices."
    if any(row.energy for row in best.values()):
        text += " Energy: of the GPU's board only, above what it takes while it waits."
    return Table("Cost of a million images", columns, tuple(body), (Note("", text), *marks.notes())) if body else None


def published_tables(timings: TimingSelection) -> dict[str, Table]:
    """What papers say of the methods that were timed, in tables of their own, by the stem of their files."""
    methods = {row.subject.method for row in timings.rows}
    tables = {}
    costs = [one for one in published_efficiencies() if one.method in methods]
    if costs:
        speeds, marks = {one.method: one for one in published_speeds()}, Marks()
        body = []
        for one in costs:
            bank = f" + {one.memory_bank:g}" if one.memory_bank else ""
            search = " + kNN" if one.memory_bank else ""
            speed = speeds.get(one.method)
            fields = (
                f"{speed.latency_ms:g}" if speed else UNDEFINED,
                f"{speed.throughput:g}" if speed else UNDEFINED,
                f"{one.parameters:g}{bank}",
                f"{one.flops:,g}{search}",
                f"{one.memory_mb:,g}{search}",
            )
            label = Field(one.title, (marks.of(one.difference),) if one.difference else ())
            body.append((label, *map(Field, fields)))
        heads = (_LATENCY, _THROUGHPUT, _PARAMETERS, _FLOPS, _MEMORY)
        sources = sorted({f"{one.source}, {one.device}" for one in costs})
        table = _published("Efficiency, published", heads, body, sources)
        tables["timing-costs-published"] = replace(table, notes=(*table.notes, *marks.notes()))
    latencies = [one for one in published_latencies() if one.method in methods]
    if latencies:
        devices = list(dict.fromkeys(one.device for one in latencies))
        by_place = {(one.title, one.device): one.latency_ms for one in latencies}
        lines = [
            (Field(title), *(Field(_one_decimal(by_place.get((title, device)))) for device in devices))
            for title in dict.fromkeys(one.title for one in latencies)
        ]
        sources = sorted({f"{one.source}, {one.precision}" for one in latencies})
        tables["timing-latency-published"] = _published("Latency in ms per image, published", devices, lines, sources)
    return tables


def _published(title: str, heads: Sequence[str], body: Sequence[tuple[Field, ...]], sources: Sequence[str]) -> Table:
    columns = (Column("Method"), *(Column(head, numeric=True) for head in heads))
    return Table(title, columns, tuple(body), tuple(Note("", f"Measured by others: {source}.") for source in sources))


def _with_bank(row: TimingRow) -> str:
    bank = row.subject.memory_bank
    return f"{row.subject.parameters / 1e6:.3f}" + (f" + {bank / 1e6:.3f}" if bank else "")


def _with_search(row: TimingRow) -> str:
    """Operations; of a memory bank whose search is not counted it is only said that there is one."""
    subject = row.subject
    if subject.flops is None:
        return UNDEFINED
    search = (
        f" + {subject.search_flops / 1e9:,.3f}" if subject.search_flops else " + kNN" if subject.memory_bank else ""
    )
    return f"{subject.flops / 1e9:,.3f}{search}"


def _megabytes(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value / 1e6:,.0f}"


def _one_decimal(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.1f}"


def _money(price: Price) -> str:
    return f"{price.amount:g} {price.currency}".strip()
