"""Which timings a report shows, and how it names devices, settings and numbers."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from reports.content.prices import Price
from reports.content.tables import OTHER, UNDEFINED, Field, Marks, Note, count
from results.store import RECORD_FILE
from results.timing_record import Reason
from results.timing_rows import Device, Estimate, TimingRow, make_rows
from results.timing_store import read_timings

SIZE_OPTION = "image_size"
"""What methods call the option that sets the size of their images."""
_MACHINE = 4
"""Letters of a machine's id that are shown, or as many as tell the machines apart."""
_COUNT = "V10"
"""The check of what was counted."""


@dataclass(frozen=True)
class TimingSelection:
    """The timings of a report.

    Attributes:
        rows: That are shown.
        invalid: That are no measurement.
        left_out: What is not shown, and why, one sentence each.
        collapse: Whether tables join machines with the same GPU.
        prices: Of an hour.
    """

    rows: tuple[TimingRow, ...]
    invalid: tuple[TimingRow, ...]
    left_out: tuple[str, ...]
    collapse: bool = False
    prices: tuple[Price, ...] = ()

    @property
    def counted(self) -> list[TimingRow]:
        """Rows whose parameters and operations hold: also those of which only the time is no measurement."""
        return [*self.rows, *(row for row in self.invalid if not _is_miscounted(row))]

    @property
    def gpus(self) -> list[TimingRow]:
        """Rows of GPUs."""
        return [row for row in self.rows if row.device.is_gpu]

    @property
    def cpus(self) -> list[TimingRow]:
        """Rows of processors, which never stand beside those of GPUs."""
        return [row for row in self.rows if not row.device.is_gpu]

    @property
    def devices(self) -> tuple[Device, ...]:
        """Every device with a row that is shown, GPUs first."""
        return tuple(sorted({row.device for row in self.rows}, key=lambda device: (not device.is_gpu, device)))

    def title(self, device: Device) -> str:
        """Name a device: GPU, its part and power limit, or processor and threads; with what tells machines apart."""
        machines = {row.device.machine for row in (*self.rows, *self.invalid)}
        length = next(n for n in range(_MACHINE, 99) if len({name[:n] for name in machines}) == len(machines) or n > 63)
        return f"{hardware_title(device)} ({device.machine[:length]})"

    def columns(self, rows: Iterable[TimingRow]) -> dict[str, frozenset[Device]]:
        """Columns of a table: title to the devices that it is of, several only where machines are joined."""
        devices = sorted({row.device for row in rows})
        if not self.collapse:
            return {self.title(device): frozenset({device}) for device in devices}
        columns = {}
        for kind in sorted({device.kind for device in devices}):
            own = [device for device in devices if device.kind == kind]
            title = self.title(own[0]) if len(own) == 1 else f"{hardware_title(kind)} ({len(own)} machines)"
            columns[title] = frozenset(own)
        return columns


NO_TIMINGS = TimingSelection((), (), ())


def _is_miscounted(row: TimingRow) -> bool:
    return any(reason.check == _COUNT for reason in row.verdict.reasons)


def select_timings(paths: Sequence[Path], *, collapse: bool = False, prices: tuple[Price, ...] = ()) -> TimingSelection:
    """Read the timings in files, run folders or any folders, and make rows of them.

    Args:
        paths: Those that do not exist are passed over.
        collapse: Join machines with the same GPU in tables.
        prices: Of an hour of a device.

    Raises:
        results.errors.ResultError: One cannot be read.
    """
    files = read_timings([path for path in paths if path.exists()])
    made = make_rows(files.records)
    return TimingSelection(made.rows, made.invalid, (*files.notes, *made.left_out), collapse, prices)


def holds_only_timings(path: Path) -> bool:
    """Whether a path is a file of timings, or a folder with such files and without a cell's record."""
    if path.is_file():
        return True
    has_records = next(path.glob(f"cells/*/{RECORD_FILE}"), None) is not None
    return not has_records and next(path.rglob("*.jsonl"), None) is not None


def hardware_title(device: Device) -> str:
    """Name a GPU with its part and power limit, or a processor with its threads, without the machine."""
    if not device.is_gpu:
        return f"{device.name}, {count(device.threads, 'thread')}"
    limit = f", {device.power_limit_watts} W" if device.power_limit_watts else ""
    return f"{device.name}{f' {device.part}' if device.part else ''}{limit}"


def milliseconds(value: float | None) -> str:
    """Print a number with three digits that mean something, and no exponent."""
    return UNDEFINED if value is None else f"{value:,.{_decimals(value)}f}"


def estimate_text(estimate: Estimate) -> str:
    """Print a value with its standard deviation over processes, or with its interval."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if estimate.deviation is not None:
        return f"{milliseconds(value)} ± {estimate.deviation:,.{_decimals(value) + 1}f}"
    if low is None or high is None:
        return milliseconds(value)
    # An interval is printed so that its ends differ, if at most two decimals more do that.
    half = (high - low) / 2
    more = min(max(0, -math.floor(math.log10(half)) - _decimals(value)), 2) if half else 0
    decimals = _decimals(value) + more
    return f"{value:,.{decimals}f} [{low:,.{decimals}f}, {high:,.{decimals}f}]"


def _decimals(value: float) -> int:
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 else 3


def joined(estimates: Sequence[Estimate]) -> Estimate:
    """One machine's value as it is; of several the median, least and greatest."""
    if len(estimates) == 1:
        return estimates[0]
    values = [estimate.value for estimate in estimates]
    return Estimate(median(values), min(values), max(values))


def setting_text(row: TimingRow) -> str:
    """How a row was run, in short: ``eager, fp16, 256×256``."""
    setting = row.setting
    backend = f"{setting.backend} fused" if setting.fused else setting.backend
    cache = ", cold cache" if setting.cache == "cold" else ""
    return f"{backend}, {setting.precision}, {setting.input_size[0]}×{setting.input_size[1]}{cache}"


def setting_texts(rows: Sequence[TimingRow]) -> dict[str, str]:
    """By identity :func:`setting_text`, with more where that and the marks of its label do not tell a row apart."""
    telling = _telling(rows, lambda row: (row.subject.title, setting_text(row), *row.subject.deviations))
    return {row.identity: ", ".join([setting_text(row), *telling[row.identity]]) for row in rows}


def row_names(rows: Sequence[TimingRow]) -> dict[str, str]:
    """By identity a name for plots: the method, and in brackets what of the setting does not go without saying."""
    telling = _telling(rows, lambda row: row.subject.title)
    several = [name for name in ("backend", "precision") if len({_facts(row)[name] for row in rows}) > 1]
    names = {}
    for row in rows:
        parts = dict.fromkeys([*(_facts(row)[name] for name in several), *telling[row.identity]])
        names[row.identity] = row.subject.title + (f" ({', '.join(parts)})" if parts else "")
    return names


def _telling(rows: Sequence[TimingRow], alike: Callable[[TimingRow], object]) -> dict[str, list[str]]:
    """By identity what tells a row from those that are otherwise alike."""
    groups: dict[object, dict[str, dict[str, str]]] = {}
    for row in rows:
        groups.setdefault(alike(row), {})[row.identity] = _facts(row)
    telling: dict[str, list[str]] = {}
    for group in groups.values():
        names = [name for name in _facts_of(group) if len({facts.get(name) for facts in group.values()}) > 1]
        if "deviations" in names:
            # They say it in fewer words than all options that are not the paper's.
            names = [name for name in names if not name.startswith("option ")]
        for identity, facts in group.items():
            telling[identity] = [facts[name] for name in names if name in facts]
    return telling


def _facts_of(group: Mapping[str, Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for facts in group.values() for name in facts))


def _facts(row: TimingRow) -> dict[str, str]:
    """What may tell a row from another one of the same method, in words."""
    setting, subject = row.setting, row.subject
    size = f"{setting.input_size[0]}×{setting.input_size[1]}"
    backend = f"{setting.backend} fused" if setting.fused else setting.backend
    named = {"backend": backend, "precision": setting.precision, "input_size": size}
    others = setting.model_dump(mode="json", exclude={"batch", "threads", "fused", *named})
    # The size of the images says what this option would say again.
    options = {name: value for name, value in subject.config.items() if name != SIZE_OPTION}
    weights = ", ".join(f"{one.name} {(one.sha256 or one.source)[:7]}" for one in subject.weights)
    return {
        **named,
        **{name: _fact(name, value) for name, value in others.items()},
        "deviations": ", ".join(subject.deviations) or "as in the paper",
        **{f"option {name}": _fact(name, value) for name, value in options.items()},
        "option weights": weights,
        "bank": f"bank of {subject.memory_bank / 1e6:.3g} M values",
    }


def _fact(name: str, value: object) -> str:
    words = name.replace("_", " ")
    return (words if value else f"no {words}") if isinstance(value, bool) else f"{words} {value}"


def row_label(row: TimingRow, marks: Marks) -> Field:
    """The method, with marks that lead to what distinguishes it from its paper's configuration."""
    return Field(row.subject.title, tuple(marks.of(text) for text in row.subject.deviations))


def reason_marks(row: TimingRow, marks: Marks) -> tuple[str, ...]:
    """Marks that lead to the reasons why a row is SUSPECT."""
    return tuple(marks.of(f"SUSPECT: {reason_text(reason)}") for reason in row.verdict.reasons)


def reason_text(reason: Reason) -> str:
    """Print a reason with the check that gave it."""
    return f"{reason.text} ({reason.check})"


def common_code(rows: Sequence[TimingRow]) -> str:
    """The code that made most of the rows, the newest of such."""
    newest = {row.code: row.newest.created for row in sorted(rows, key=lambda row: row.newest.created)}
    counts = Counter(row.code for row in rows)
    return max(newest, key=lambda code: (counts[code], newest[code]))


def other_code(rows: Sequence[TimingRow]) -> tuple[Note, ...]:
    """What the dagger on values of other code than the rest means; empty if there is none."""
    common = common_code(rows)
    others = sorted({row.code for row in rows} - {common})
    text = f"timed with other code than the rest: {', '.join(others)} instead of {common}"
    return (Note(OTHER, text),) if others else ()


def about(rows: Sequence[TimingRow]) -> tuple[Note, ...]:
    """What a caption says: mode, region, clock, precision, what the numbers are, code."""
    settings = [row.setting for row in rows]
    regions = sorted({f"{setting.mode}, {setting.region}, by {setting.clock}" for setting in settings})
    types = sorted({f"networks in {setting.precision} on {setting.input_dtype} images" for setting in settings})
    kinds = {
        True: "Rigorous: mean of the processes' medians with its 95 % interval between processes.",
        False: "Mean over processes of each one's mean, ± standard deviation over processes.",
    }
    return (
        Note("", f"Timed: {'; '.join(regions)}; {', '.join(types)}."),
        *(Note("", kinds[rigorous]) for rigorous in sorted({row.setting.protocol == "rigorous" for row in rows})),
        Note("", f"Code: {common_code(rows)}. {UNDEFINED}: not measured."),
        *other_code(rows),
    )
