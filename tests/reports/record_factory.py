"""Records as a run would write them: made up, but of every kind that a report must show."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from results.arrays import choose_examples, make_example, write_examples
from results.record import Collection, Data, Environment, Failure, ImageResult, Record, Timings, Weights
from results.store import RunStore

DEMO_NOTE = "synthetic defects on photographs: shows that the installation works, ranks nothing"
MVTEC = Collection(name="mvtec_ad", title="MVTec AD", scenarios=15)
LOCO = Collection(name="mvtec_loco", title="MVTec LOCO", scenarios=5)
DEMO = Collection(name="demo", title="Demo", note=DEMO_NOTE)
BACKBONE = Weights(name="efficientnet_lite0", source="embedded", tag="TensorFlow ImageNet weights", sha256="ab" * 32)
METHODS = {
    "patchcore": ("PatchCore", "Roth et al., CVPR 2022", 0.04),
    "efficientad_s": ("EfficientAD-S", "Batzner et al., WACV 2024", 0.02),
    "fastflow": ("FastFlow", "Yu et al., 2021", 0.08),
    "dsr": ("DSR", "Zavrtanik et al., ECCV 2022", 0.1),
    "ast": ("AST", "Rudolph et al., WACV 2023", 0.07),
    "gcad": ("GCAD", "Bergmann et al., IJCV 2022", 0.12),
    "simplenet": ("SimpleNet", "Liu et al., CVPR 2023", 0.09),
    "rdpp": ("RD++", "Tien et al., CVPR 2023", 0.05),
    "spade": ("SPADE", "Cohen and Hoshen, 2020", 0.2),
    "efficientad_m": ("EfficientAD-M", "Batzner et al., WACV 2024", 0.015),
    "patchcore_ens": ("PatchCore-Ens", "Roth et al., CVPR 2022", 0.03),
    "uninformed_students": ("S-T (uninformed students)", "Bergmann et al., CVPR 2020", 0.15),
}
PLAIN = ("image_au_roc", "image_average_precision", "au_pro@0.3", "au_pro@0.05", "pixel_average_precision")
SATURATED = ("image_au_roc", "au_spro@0.05")


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def unit(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments."""
    return int(digest(*parts)[:8], 16) / 16**8


def make_metrics(method: str, collection: Collection, scenario: str, seed: int) -> dict[str, float | None]:
    error = METHODS[method][2]

    def value(name: str) -> float:
        hardness = 0.5 + unit(scenario, name) + 0.1 * unit(method, scenario, seed, name)
        return round(max(0.0, 1 - error * hardness * (3 if "0.05" in name or "pixel" in name else 1)), 6)

    if collection is not LOCO:
        return {name: value(name) for name in PLAIN}
    metrics: dict[str, float | None] = {}
    for name in SATURATED:
        halves = {half: value(f"{half}/{name}") for half in ("structural", "logical")}
        metrics |= {f"{half}/{name}": number for half, number in halves.items()}
        metrics[name] = sum(halves.values()) / 2
    return metrics


def make_record(
    method: str = "patchcore", collection: Collection = MVTEC, scenario: str = "pill", seed: int = 0, **changes
) -> Record:
    title, source, _ = METHODS[method]
    defects = ("good", "good", "good", "crack", "color", "missing part", "scratch", "very_long_defect_type_name")
    images = [
        ImageResult(
            name=f"test/{defect}/{number:03d}",
            defect=defect,
            anomalous=defect != "good",
            score=unit(method, scenario, seed, number),
        )
        for number, defect in enumerate(defects)
    ]
    fields = {
        "key": digest(method, collection.name, scenario, seed, sorted(changes.items(), key=str)),
        "status": "ok",
        "method": method,
        "title": title,
        "source": source,
        "collection": collection,
        "scenario": scenario,
        "seed": seed,
        "config": {"image_size": 224, "backbone": "efficientnet_lite0", "layers": ["layer2", "layer3"]},
        "preset": "embedded",
        "deviations": ["backbone efficientnet_lite0 instead of wide_resnet101_2"],
        "weights": [BACKBONE],
        "protocol": {"center_crop": False, "fpr_limits": [0.05, 0.3, 1.0], "regions": "8-connected"},
        "protocol_hash": "5" * 64,
        "training_steps": 70_000 if method.startswith("efficientad") else None,
        "data": Data(fingerprint=digest(scenario), train=60, validation=6, test_normal=3, test_anomalous=5),
        "metrics": make_metrics(method, collection, scenario, seed),
        "images": images,
        "timings": Timings(decode=1.5, fit=30.25, maps=4.0, metrics=0.5),
        "environment": Environment(
            platform="Linux-6.1-x86_64",
            python="3.11.7",
            cpu="Intel Xeon Platinum 8481C",
            threads=2,
            device="cpu",
            packages={"numpy": "2.4.6", "torch": "2.13.0"},
            git_commit="faa3b6e0c1d2e3f405162738495a6b7c8d9e0f1a",
            git_dirty=False,
        ),
        "command": f"bench run --methods {method} --datasets {collection.name}/{scenario}",
        "created": datetime(2026, 1, 2, tzinfo=UTC) + timedelta(minutes=seed),
    }
    return Record.model_validate({**fields, **changes})


def fail(record: Record, reason: str, kind: str = "error", log_tail: str = "") -> Record:
    """The same cell, failed."""
    failure = Failure(kind=kind, reason=reason, log_tail=log_tail)
    changes = {"status": "failed", "failure": failure, "metrics": {}, "undefined": {}, "images": [], "weights": []}
    return Record.model_validate({**record.model_dump(), **changes})


def undefine(record: Record, metric: str, reason: str) -> Record:
    """The same cell with one metric undefined."""
    return Record.model_validate(
        {**record.model_dump(), "metrics": {**record.metrics, metric: None}, "undefined": {metric: reason}}
    )


def typical_records() -> list[Record]:
    """Three methods, three collections, seeds 0-2, a failed cell, an undefined metric, incomplete data."""
    note = "incomplete: 40 of 167 test images"
    data = Data(fingerprint=digest("pill"), train=60, validation=6, test_normal=10, test_anomalous=30, note=note)
    records = []
    for method in ("efficientad_s", "fastflow", "patchcore"):
        for seed in (0, 1, 2):
            records.append(make_record(method, MVTEC, "pill", seed, data=data))
            records.append(make_record(method, MVTEC, "metal_nut", seed))
            records.append(make_record(method, DEMO, "brick", seed))
            records.append(make_record(method, LOCO, "breakfast_box", seed))
    log = 'Traceback (most recent call last):\n  File "worker.py", line 1\nMemoryError: 50% & more_of_it | `all`'
    failed = next(
        index
        for index, record in enumerate(records)
        if (record.method, record.scenario, record.seed) == ("fastflow", "metal_nut", 1)
    )
    records[failed] = fail(records[failed], "out of memory: the worker was killed at 12.5 GiB", "memory", log)
    undefined = next(
        index
        for index, record in enumerate(records)
        if (record.method, record.scenario, record.seed) == ("patchcore", "metal_nut", 2)
    )
    records[undefined] = undefine(records[undefined], "au_pro@0.3", "no defect pixel in any mask")
    return records


def write_run(root: Path, records: list[Record], examples: bool = True) -> Path:
    """Write the records, and for each cell that worked a few examples."""
    store = RunStore(root)
    for record in records:
        if examples and record.status == "ok":
            by_name = {image.name: image for image in record.images}
            made = [_example(record, by_name[name]) for name in choose_examples(record.images)]
            write_examples(store.cell_directory(record), made)
        store.write(record)
    return root


def _example(record: Record, image: ImageResult):
    rng = np.random.default_rng(int(digest(record.scenario, image.name)[:8], 16))
    rows, columns = np.mgrid[0:48, 0:64]
    texture = 120 + 40 * np.sin(rows / 5) * np.cos(columns / 7) + rng.normal(0, 8, (48, 64))
    mask = np.zeros((48, 64), bool)
    center = rng.integers(12, 36, 2)
    blob = np.exp(-((rows - center[0]) ** 2 + (columns - center[1]) ** 2) / 40)
    if image.anomalous:
        mask = blob > 0.5
        texture = np.where(mask, texture * 0.3, texture)
    pixels = np.clip(np.stack([texture, texture * 0.9, texture * 0.8], -1), 0, 255).astype(np.uint8)
    scale = 1 + 10 * unit(record.method)
    noise = np.random.default_rng(int(record.key[:8], 16)).random((12, 16))
    anomaly_map = scale * (blob[::4, ::4] * image.anomalous + 0.3 * noise)
    return make_example(image.name, pixels, mask, anomaly_map)
