"""Exact metrics against the implementations in use: time, extra memory and deviation, on the same data in one run.

    python -m benchmarks.metrics                  # full size: 120 images of 1024 × 1024, 10 GiB, 20 minutes
    python -m benchmarks.metrics --images 15      # an eighth of it
    python -m benchmarks.metrics --only ours,sort

Peers that are not installed are left out (``pip install anomalib adeval torchmetrics scikit-learn``). Every
implementation runs in a fresh process on maps in memory; times are the best of ``--repeat`` runs after one on two
images, so that compilation is not counted. Compare ratios: the machine's speed cancels out. Extra memory is the peak
of the process above what it held before the first run on all maps.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# This file is called like the package that it measures, and its own folder would be searched first.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.workload import Maps, Masks, heavy_tailed, workload  # noqa: E402
from methods.common.torchvision_import import import_torchvision  # noqa: E402

Values = dict[str, float]
LIMITS = (0.05, 0.3, 1.0)


class FromFile(Sequence[NDArray[Any]]):
    """The images of an .npy file, each read when it is asked for."""

    def __init__(self, file: str) -> None:
        self._file = file
        mapped = np.load(file, mmap_mode="r")
        self._shape, self._dtype, self._offset = mapped.shape, mapped.dtype, mapped.offset

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, index: Any) -> Any:
        pixels = self._shape[1] * self._shape[2]
        offset = self._offset + index * pixels * self._dtype.itemsize
        return np.fromfile(self._file, self._dtype, pixels, offset=offset).reshape(self._shape[1:])


class OrNone(Sequence[NDArray[Any] | None]):
    """Masks, None in place of empty ones."""

    def __init__(self, masks: Sequence[NDArray[Any]] | Masks) -> None:
        self._masks = masks

    def __len__(self) -> int:
        return len(self._masks)

    def __getitem__(self, index: Any) -> Any:
        mask = self._masks[index]
        return mask if mask.any() else None


# Each function below is one row: it takes the maps and masks and returns the values it computes.


def ours(maps: Maps, masks: Masks, threads: int) -> Values:
    import metrics

    return metrics.evaluate_pixels(maps, OrNone(masks), LIMITS, threads=threads).named()


def sort(maps: Maps, masks: Masks) -> Values:
    np.sort(maps, axis=None)
    return {}


SCRATCH: dict[str, Maps] = {}


def sort_in_place(maps: Maps, masks: Masks) -> Values:
    """Sort in memory that is there already: fetching the pages of a new array can cost more than sorting it."""
    scratch = SCRATCH.setdefault("scores", np.zeros(maps.size, np.float32))
    scratch[: maps.size] = maps.ravel()
    scratch[: maps.size].sort()
    return {}


def argsort_exact(maps: Maps, masks: Masks) -> Values:
    """AU-PRO as the official evaluation of MVTec AD computes it: one global argsort, cumulated weights."""
    from scipy import ndimage

    false_positive = np.zeros(maps.shape, np.uint32)
    overlap = np.zeros(maps.shape)
    regions = 0
    for index, mask in enumerate(masks):
        labels, number = ndimage.label(mask, np.ones((3, 3), np.int64))
        areas = np.bincount(labels.ravel(), minlength=number + 1)
        overlap[index] = np.where(labels > 0, 1 / areas[labels], 0)
        false_positive[index] = labels == 0
        regions += number
    order = np.argsort(maps, axis=None)[::-1]
    scores = maps.ravel()[order]
    last = np.append(scores[1:] != scores[:-1], True)
    fpr = np.cumsum(false_positive.ravel()[order], dtype=np.uint64)[last]
    fpr = np.append(0, fpr / fpr[-1])
    pro = np.append(0, (np.cumsum(overlap.ravel()[order]) / regions)[last])
    values = {}
    for limit in LIMITS:
        end = np.searchsorted(fpr, limit, side="right")
        x = np.append(fpr[:end], limit)
        y = np.append(pro[:end], np.interp(limit, fpr, pro))
        values[f"au_pro@{limit}"] = np.trapezoid(y, x) / limit
    return values


def anomalib(maps: Maps, masks: Masks) -> Values:
    import_torchvision()
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=0.3)
    for scores, mask in zip(maps, masks, strict=True):
        metric.update(torch.from_numpy(scores.copy())[None], torch.from_numpy(mask.copy())[None])
    return {"au_pro@0.3": float(metric.compute())}


def adeval(maps: Maps, masks: Masks) -> Values:
    if not hasattr(np, "trapz"):
        vars(np)["trapz"] = np.trapezoid  # removed in numpy 2.4, still called
    from adeval import auroc_aupr_aupro

    roc, precision, pro = auroc_aupr_aupro(maps, masks.astype(np.uint8))
    return {"pixel_au_roc@1.0": roc, "pixel_average_precision": precision, "au_pro@0.3": pro}


def torchmetrics(maps: Maps, masks: Masks) -> Values:
    import_torchvision()
    import torch
    from torchmetrics.functional.classification import binary_auroc, binary_average_precision

    scores, target = torch.from_numpy(maps.ravel()), torch.from_numpy(masks.ravel().astype(np.int64))
    return {
        "pixel_au_roc@1.0": float(binary_auroc(scores, target)),
        "pixel_average_precision": float(binary_average_precision(scores, target)),
    }


def scikit_learn(maps: Maps, masks: Masks) -> Values:
    from sklearn.metrics import average_precision_score, roc_auc_score

    return {
        "pixel_au_roc@1.0": roc_auc_score(masks.ravel(), maps.ravel()),
        "pixel_average_precision": average_precision_score(masks.ravel(), maps.ravel()),
    }


def bootstrap(maps: Maps, masks: Masks) -> Values:
    import metrics

    intervals = metrics.bootstrap_pixels(metrics.count_pixels(maps, OrNone(masks)), LIMITS, resamples=1000)
    return {name: interval.value for name, interval in intervals.items()}


ROWS = {
    "ours, 1 thread": lambda maps, masks: ours(maps, masks, 1),
    "ours, 2 threads": lambda maps, masks: ours(maps, masks, 2),
    "ours, 1 thread, streamed from files": lambda maps, masks: ours(maps, masks, 1),
    "ours, 2 threads, streamed from files": lambda maps, masks: ours(maps, masks, 2),
    "np.sort of the maps": sort,
    "the same, in place": sort_in_place,
    "argsort (official AD)": argsort_exact,
    "ADEval, 1000 bins": adeval,
    "anomalib AUPRO, 0.3 only": anomalib,
    "torchmetrics, ROC + AP": torchmetrics,
    "scikit-learn, ROC + AP": scikit_learn,
    "bootstrap, 1000 resamples": bootstrap,
}
SLOW = {"argsort (official AD)", "anomalib AUPRO, 0.3 only", "torchmetrics, ROC + AP", "scikit-learn, ROC + AP"}


def measure(row: str, maps_file: str, masks_file: str, repeat: int) -> None:
    """Run one row in this process; print its times, memory and values as JSON."""
    if "streamed" in row:
        maps, masks = FromFile(maps_file), FromFile(masks_file)
    else:
        maps, masks = np.load(maps_file), np.load(masks_file)
    third = len(maps) // 3
    few = range(third - 2, third + 2)  # two normal, two anomalous
    ROWS[row](np.stack([maps[i] for i in few]), np.stack([masks[i] for i in few]))
    SCRATCH.clear()
    before = memory("VmRSS")
    values = ROWS[row](maps, masks)
    extra = (memory("VmHWM") - before) / 2**20
    # Each run is paired with a sort: what else the machine does then slows both.
    loaded = np.load(maps_file)
    sort_in_place(loaded, masks)
    times = [
        (timed(sort_in_place, loaded, masks), timed(ROWS[row], maps, masks))
        for _ in range(1 if row in SLOW else repeat)
    ]
    (sort_wall, sort_cpu), (wall, cpu) = (np.min([pair[k] for pair in times], axis=0).tolist() for k in (0, 1))
    print(
        json.dumps(
            {
                "wall": wall,
                "wall_ratio": wall / sort_wall,
                "cpu_ratio": cpu / sort_cpu,
                "extra": extra,
                "values": values,
            }
        )
    )


def timed(row: Callable[[Any, Any], Values], maps: Any, masks: Any) -> tuple[float, float]:
    """Return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    row(maps, masks)
    return time.perf_counter() - wall, time.process_time() - cpu


def memory(kind: str) -> int:
    """Return memory of this process in bytes, now (VmRSS) or its peak (VmHWM).

    getrusage would report the peak of the parent if that is larger.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) * 1024


def adaptive_spro(maps: Maps, defects: Sequence[Sequence[Any]], limit: float) -> tuple[float, int]:
    """Return AU-sPRO as the official evaluation of MVTec LOCO approaches it, and how many thresholds that took.

    50 equidistant ranks of a sample, then at most 10 rounds of at most 100 thresholds between the neighbours that lie
    farthest apart, until all are closer than 0.001 in FPR and sPRO up to the limit. Each threshold visits every pixel:
    here with the least numpy takes, a comparison and counts of bits, on images whose normal pixels are known
    beforehand. The sample is small, and sorting it is not what takes time.
    """
    normal = [~np.any([d.mask for d in each], axis=0) if each else None for each in defects]
    normals = sum(m.size if n is None else np.count_nonzero(n) for m, n in zip(maps, normal, strict=True))
    count = sum(map(len, defects))

    def point(threshold: float) -> tuple[float, float]:
        false_positives, overlap = 0, 0.0
        for scores, each, outside in zip(maps, defects, normal, strict=True):
            positive = scores > threshold
            false_positives += np.count_nonzero(positive if outside is None else positive & outside)
            for defect in each:
                overlap += min(np.count_nonzero(positive & defect.mask) / defect.saturation, 1)
        return false_positives / normals, overlap / count

    sample = np.sort(maps[:, ::16, ::16], axis=None)
    points = {float(t): point(t) for t in sample[np.linspace(0, sample.size - 1, 50).astype(int)]}
    for _ in range(10):
        thresholds = sorted(points, reverse=True)
        curve = np.array([points[t] for t in thresholds])
        gaps = np.abs(np.diff(curve, axis=0)).max(axis=1) * (curve[:-1, 0] < limit)
        widest = np.argsort(-gaps)[:100]
        new = {(thresholds[k] + thresholds[k + 1]) / 2 for k in widest[gaps[widest] >= 1e-3]} - points.keys()
        if not new:
            break
        points |= {threshold: point(threshold) for threshold in new}
    fpr, overlap = np.array([(0.0, 0.0), *(points[t] for t in sorted(points, reverse=True)), (1.0, 1.0)]).T
    end = int(np.searchsorted(fpr, limit, side="right"))
    x, y = np.append(fpr[:end], limit), np.append(overlap[:end], np.interp(limit, fpr, overlap))
    return float(np.trapezoid(y, x)) / limit, len(points)


def print_saturated_table(images: int, repeat: int) -> None:
    """Compare AU-sPRO with AU-PRO on the same pixels, and with the official algorithm's work."""
    import metrics

    rng = np.random.default_rng(1)
    shape = (800, 1600)
    maps = np.empty((images, *shape), np.float32)
    defects: list[list[metrics.Defect]] = []
    for index in range(images):
        maps[index] = metrics.UpsampledMaps([rng.random((100, 200)) * 0.5], [shape])[0]
        defects.append([])
        for _ in range(0 if index < images // 3 else rng.integers(1, 4)):
            height, width = (10 ** rng.uniform(1.3, 2.6, 2)).astype(int)
            top, left = rng.integers(0, shape[0] - height), rng.integers(0, shape[1] - width)
            mask = np.zeros(shape, np.bool_)
            mask[top : top + height, left : left + width] = True
            maps[index][mask] += rng.uniform(0, 0.5)
            defects[index].append(metrics.Defect(mask, max(1, int(rng.uniform(0.1, 1) * mask.sum()))))
    masks = [np.any([d.mask for d in each], axis=0) if each else None for each in defects]
    print(f"{images} images of 800 × 1600 in LOCO form, 2 threads; ratios of wall times\n")
    print("| FPR limits | AU-PRO s | AU-sPRO s | ratio | official s | its thresholds | × ours | its deviation |")
    print("|---|---|---|---|---|---|---|---|")
    for limits in ((0.05,), LIMITS):
        rows: tuple[Callable[[], Any], ...] = (
            lambda limits=limits: metrics.evaluate_pixels(maps, masks, limits, threads=2),
            lambda limits=limits: metrics.evaluate_saturated(maps, defects, limits, threads=2),
        )
        # In turns, so that the machine's other work falls on both; the first runs compile.
        runs = [[timed(lambda *_, row=row: row(), maps, masks)[0] for row in rows] for _ in range(repeat + 1)]
        plain, saturated = np.min(runs, axis=0)
        exact = rows[1]().au_spro
        start = time.perf_counter()
        approached, count = adaptive_spro(maps, defects, max(limits))
        official = time.perf_counter() - start
        print(
            f"| {', '.join(map(str, limits))} | {plain:.2f} | {saturated:.2f} | {saturated / plain:.2f} "
            f"| {official:.1f} | {count} | {official / saturated:.0f} | {approached - exact[max(limits)]:+.1e} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=120)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", default="", help="parts of the names of rows, comma-separated")
    parser.add_argument("--folder", type=Path, help="where the maps are kept (default: temporary)")
    parser.add_argument("--saturated", type=int, metavar="IMAGES", help="the table of AU-sPRO instead (full: 300)")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--files", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        measure(options.row, *options.files, options.repeat)
        return
    if options.saturated:
        print_saturated_table(options.saturated, options.repeat)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        maps, masks = workload(options.images, options.size)
        np.save(folder / "masks.npy", masks)
        np.save(folder / "smooth.npy", maps)
        np.save(folder / "heavy.npy", heavy_tailed(maps))
        del maps
        print(f"{options.images} images of {options.size}², {masks.mean():.2%} defect pixels\n")
        for kind in ("smooth", "heavy"):
            print_table(kind, folder, options)


def print_table(kind: str, folder: Path, options: argparse.Namespace) -> None:
    wanted = [part for part in options.only.split(",") if part]
    rows = [row for row in ROWS if not wanted or any(part in row for part in wanted)]
    results = {row: run(row, folder / f"{kind}.npy", folder / "masks.npy", options.repeat) for row in rows}
    exact = next((results[row]["values"] for row in rows if row.startswith("ours") and results[row]), {})
    print(f"| {kind} scores | wall s | × sort in place (wall) | (CPU) | extra MB | largest deviation |")
    print("|---|---|---|---|---|---|")
    for row, result in results.items():
        if result is None:
            print(f"| {row} | – | – | – | – | failed or not installed |")
            continue
        deviation = max((abs(v - exact[n]) for n, v in result["values"].items() if n in exact), default=float("nan"))
        print(
            f"| {row} | {result['wall']:.2f} | {result['wall_ratio']:.2f} | {result['cpu_ratio']:.2f} "
            f"| {result['extra']:.0f} | {deviation:.1e} |"
        )
    print(flush=True)


def run(row: str, maps: Path, masks: Path, repeat: int) -> dict[str, Any] | None:
    command = [sys.executable, __file__, "--row", row, "--repeat", str(repeat), "--files", str(maps), str(masks)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"{row}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
