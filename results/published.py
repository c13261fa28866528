"""Numbers from papers, as data: for reference beside our rows, never averaged with them.

The accuracies are means over complete collections under the protocol of the EfficientAD paper: no centre crop, last
training state, maps at the original resolution.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files

from results.errors import ResultError

_OTHER_CHIPS = frozenset({"d", "laptop", "max", "mobile", "nvl", "super", "ti"})
"""Words that make another GPU of a name."""
_FOLDER = files("results") / "published"


@dataclass(frozen=True)
class PublishedAccuracy:
    """One mean over a complete collection.

    Attributes:
        method: Name in the registry.
        title: As tables print it.
        collection: Short name of the collection.
        metric: Name in the vocabulary, such as ``au_pro@0.3``.
        value: Fraction, 0 to 1, published with three digits.
        source: Paper and table.
    """

    method: str
    title: str
    collection: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class PublishedSpeed:
    """One method's inference speed.

    Attributes:
        method: Name in the registry.
        title: As tables print it.
        latency_ms: Milliseconds per image at batch size 1.
        throughput: Images per second at batch size 16.
        device: Where it was measured.
        precision: Of the networks.
        source: Paper and table.
    """

    method: str
    title: str
    latency_ms: float
    throughput: float
    device: str
    precision: str
    source: str


@dataclass(frozen=True)
class GpuPeak:
    """What a GPU can do at most.

    Attributes:
        gpu: Part of the name that the driver gives it.
        float16_tflops: Dense products of float16 and bfloat16, 10^12 operations per second.
        tf32_tflops: Of float32 whose factors are rounded to 10 bits.
        float32_tflops: Of float32.
        memory_gb_per_s: Bandwidth of its memory.
        source: Data sheet.
    """

    gpu: str
    float16_tflops: float
    tf32_tflops: float
    float32_tflops: float
    memory_gb_per_s: float
    source: str

    def tflops(self, precision: str, *, tf32: bool) -> float:
        """10^12 operations per second in a precision, ``fp32``, ``fp16`` or ``bf16``."""
        if precision != "fp32":
            return self.float16_tflops
        return self.tf32_tflops if tf32 else self.float32_tflops


@dataclass(frozen=True)
class PublishedLatency:
    """One method's latency on one GPU.

    Attributes:
        method: Name in the registry.
        title: As tables print it.
        device: The GPU.
        latency_ms: Milliseconds per image at batch size 1.
        precision: Of the networks.
        source: Paper and table.
    """

    method: str
    title: str
    device: str
    latency_ms: float
    precision: str
    source: str


@dataclass(frozen=True)
class PublishedEfficiency:
    """What one method needs to process one image.

    Attributes:
        method: Name in the registry.
        title: As tables print it.
        parameters: Millions, of the networks.
        memory_bank: Millions of values in a memory bank; 0 without one.
        flops: Billions of floating-point operations, without the search in a memory bank.
        memory_mb: Peak of reserved GPU memory in 10^6 bytes, without what the search takes.
        device: The GPU.
        source: Paper and table.
        difference: What is counted here in the paper's configuration, and why, if it is known; empty if it is the same.
    """

    method: str
    title: str
    parameters: float
    memory_bank: float
    flops: float
    memory_mb: float
    device: str
    source: str
    difference: str


def published_accuracies() -> tuple[PublishedAccuracy, ...]:
    """All published accuracies, in the order of the file.

    Raises:
        ResultError: The file is damaged.
    """
    return tuple(
        PublishedAccuracy(
            row["method"],
            row["title"],
            row["collection"],
            row["metric"],
            _number(row["percent"], 0, 100) / 100,
            row["source"],
        )
        for row in _rows("efficientad_accuracy.csv")
    )


def published_speeds() -> tuple[PublishedSpeed, ...]:
    """All published speeds, in the order of the file.

    Raises:
        ResultError: The file is damaged.
    """
    return tuple(
        PublishedSpeed(
            row["method"],
            row["title"],
            _number(row["latency_ms"], 0, 1e6),
            _number(row["throughput_images_per_s"], 0, 1e9),
            row["device"],
            row["precision"],
            row["source"],
        )
        for row in _rows("efficientad_speed.csv")
    )


def published_latencies() -> tuple[PublishedLatency, ...]:
    """All published latencies by GPU, in the order of the file.

    Raises:
        ResultError: The file is damaged.
    """
    return tuple(
        PublishedLatency(
            row["method"],
            row["title"],
            row["device"],
            _number(row["latency_ms"], 0, 1e6),
            row["precision"],
            row["source"],
        )
        for row in _rows("efficientad_gpu_latency.csv")
    )


def published_efficiencies() -> tuple[PublishedEfficiency, ...]:
    """All published costs of one image, in the order of the file.

    Raises:
        ResultError: The file is damaged.
    """
    return tuple(
        PublishedEfficiency(
            row["method"],
            row["title"],
            _number(row["parameters_millions"], 0, 1e6),
            _number(row["memory_bank_millions"], 0, 1e6),
            _number(row["gflops"], 0, 1e9),
            _number(row["memory_mb"], 0, 1e9),
            row["device"],
            row["source"],
            row["difference"],
        )
        for row in _rows("efficientad_efficiency.csv")
    )


def gpu_peak(name: str) -> GpuPeak | None:
    """What the GPU of a name can do at most; ``None`` where no data sheet of that very GPU is at hand.

    Args:
        name: As the driver says, such as ``NVIDIA H100 80GB HBM3``.

    Raises:
        ResultError: The file is damaged.
    """
    for row in _rows("gpu_peaks.csv"):
        known, words = set(row["gpu"].split()), set(name.replace("-", " ").split())
        if known <= words and _OTHER_CHIPS.isdisjoint(word.casefold() for word in words - known):
            return GpuPeak(
                row["gpu"],
                _number(row["float16_tflops"], 0, 1e6),
                _number(row["tf32_tflops"], 0, 1e6),
                _number(row["float32_tflops"], 0, 1e6),
                _number(row["memory_gb_per_s"], 0, 1e6),
                row["source"],
            )
    return None


def _rows(name: str) -> Iterator[dict[str, str]]:
    text = (_FOLDER / name).read_text(encoding="utf-8")
    yield from csv.DictReader(text.splitlines(), strict=True)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ResultError(f"a published number in {_FOLDER} is {text!r}; allowed: {low} to {high}")
    return value
