"""What may be claimed of two timings: which row is faster on one device, whether devices rank methods alike."""

import math
from collections.abc import Sequence
from itertools import combinations

from reports.content.tables import UNDEFINED, Column, Field, Marks, Note, Table
from reports.content.timings import TimingSelection, estimate_text, row_label, row_names, setting_texts
from results.timing_rows import Comparison, Device, Estimate, TimingRow, compare_rows

_RANKED = 3
"""Fewer rows in common make no ranking."""


def comparison_tables(timings: TimingSelection, device: Device) -> dict[str, Table]:
    """Latencies of one device in terms of the least, a table per protocol and mode with several rows."""
    tables = {}
    for (protocol, mode), rows in _latencies([row for row in timings.rows if row.device == device]).items():
        first = min(rows, key=lambda row: row.median.value)
        compared = [(row, compare_rows(row, first)) for row in rows if row is not first]
        if any(comparison.ratio is not None for _, comparison in compared):
            words = protocol if mode == "request" else f"{protocol}, {mode}"
            title = f"{timings.title(device)}: latency in terms of the least, protocol {words}"
            tables[f"{protocol}-{mode}"] = _comparison_table(title, first, compared)
    return tables


def _comparison_table(title: str, first: TimingRow, compared: Sequence[tuple[TimingRow, Comparison]]) -> Table:
    settings, marks = setting_texts([first, *(row for row, _ in compared)]), Marks()
    body = [(row_label(first, marks), Field(settings[first.identity]), Field("1"), Field("the least"))]
    for row, seen in sorted(compared, key=lambda pair: pair[0].median.value):
        ratio = UNDEFINED if seen.ratio is None else estimate_text(Estimate(seen.ratio, seen.low, seen.high))
        word = seen.word if seen.ratio is not None else "never ran in turn with it"
        body.append((row_label(row, marks), Field(settings[row.identity]), Field(ratio), Field(word)))
    columns = (Column("Method"), Column("Setting"), Column("Ratio", numeric=True), Column("Compared"))
    note = Note(
        "",
        "Geometric mean over pairs of processes that ran in the same round, of their medians' ratio, with its 95 % "
        "interval. Faster and slower: the interval excludes 1; same: it lies within 1 % of 1.",
    )
    return Table(title, columns, tuple(body), (note, *marks.notes()))


def ranking_table(timings: TimingSelection) -> Table | None:
    """How alike any two devices rank what was timed on both, GPUs and processors apart; ``None`` without such."""
    body = []
    for kind in (timings.gpus, timings.cpus):
        for (protocol, mode), rows in _latencies(kind).items():
            for one, other in combinations(sorted({row.device for row in rows}), 2):
                pairs = _pairs(rows, one, other)
                if len(pairs) >= _RANKED:
                    body.append((Field(f"{protocol}, {mode}"), *_ranking(timings, one, other, pairs)))
    heads = (Column("Protocol"), Column("Device"), Column("Other device"), Column("Rows", numeric=True))
    columns = (*heads, Column("Kendall's tau", numeric=True), Column("Ranked otherwise"))
    note = Note("", "By latency at batch size 1. 1: the same ranking on both devices; −1: the reverse.")
    return Table("Ranking between devices", columns, tuple(body), (note,)) if body else None


def _ranking(
    timings: TimingSelection, one: Device, other: Device, pairs: Sequence[tuple[TimingRow, TimingRow]]
) -> tuple[Field, ...]:
    from scipy.stats import kendalltau

    here, there = ([pair[side].latency.value for pair in pairs] for side in (0, 1))
    by_identity = row_names([row for row, _ in pairs])
    names = [by_identity[row.identity] for row, _ in pairs]
    swapped = [
        f"{names[a]} and {names[b]}"
        for a, b in combinations(range(len(pairs)), 2)
        if (here[a] - here[b]) * (there[a] - there[b]) < 0
    ]
    tau = float(kendalltau(here, there).statistic)
    return (
        Field(timings.title(one)),
        Field(timings.title(other)),
        Field(str(len(pairs))),
        Field(UNDEFINED if math.isnan(tau) else f"{tau:.2f}".replace("-", "−")),
        Field("; ".join(swapped) or "none"),
    )


def _latencies(rows: Sequence[TimingRow]) -> dict[tuple[str, str], list[TimingRow]]:
    """By protocol and mode the rows that have a latency."""
    groups: dict[tuple[str, str], list[TimingRow]] = {}
    for row in rows:
        if row.setting.batch == 1 and row.setting.mode in ("request", "device"):
            groups.setdefault((row.setting.protocol, row.setting.mode), []).append(row)
    return dict(sorted(groups.items()))


def _pairs(rows: Sequence[TimingRow], one: Device, other: Device) -> list[tuple[TimingRow, TimingRow]]:
    theirs = {row.identity: row for row in rows if row.device == other}
    return [(row, theirs[row.identity]) for row in rows if row.device == one and row.identity in theirs]
