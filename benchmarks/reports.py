"""How the time of a report grows with its records: seconds of the processor, at 1,000 and at ten times as many.

The records are made up: 13 methods on 32 scenarios of three collections, with as many seeds as it takes, 20 images,
all metrics and thresholds each, without arrays. Growth 10 is as it should be.

    python -m benchmarks.reports
    python -m benchmarks.reports 300 3000
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from pathlib import Path
from random import Random

from bench.run_folder import update_report
from reports.content.document import make_document
from reports.content.selection import read_runs
from reports.report import make_report
from results.record import Collection, Data, Environment, ImageResult, Record, Threshold, Timings
from results.store import RECORD_FILE, RunStore

RECORDS = (1_000, 10_000)
METHODS = 13
COLLECTIONS = (("mvtec_ad", "MVTec AD", 15), ("visa", "VisA", 12), ("mvtec_loco", "MVTec LOCO", 5))
IMAGES = ("image_au_roc", "image_average_precision", "image_f1_max")
PIXELS = (
    *(f"{name}@{limit}" for name in ("au_pro", "pixel_au_roc") for limit in ("0.05", "0.3", "1.0")),
    *("pixel_average_precision", "pixel_f1_max", "size_robustness@0.3"),
    *(f"au_pro_q{quartile}@0.3" for quartile in range(1, 5)),
)
SATURATED = ("au_spro@0.05", "au_spro@0.3", "au_spro@1.0")
RULES = ("max", "mean+3sd", "fpr0.05")


def records() -> Iterator[Record]:
    """Yield as many records as wanted, seed by seed."""
    for seed in count():
        for collection, title, scenarios in COLLECTIONS:
            for scenario in range(scenarios):
                for method in range(METHODS):
                    cell = (f"method_{method}", Collection(name=collection, title=title, scenarios=scenarios))
                    yield record(*cell, f"scenario_{scenario:02d}", seed)


def record(method: str, collection: Collection, scenario: str, seed: int) -> Record:
    """Make a record up."""
    random = Random(f"{method} {collection.name} {scenario} {seed}")
    names = [
        *IMAGES,
        *PIXELS,
        *(f"{level}_{value}@{rule}" for level in ("image", "any_pixel") for value in ("f1", "fpr") for rule in RULES),
    ]
    if collection.name == "mvtec_loco":
        names = [half + name for half in ("", "structural/", "logical/") for name in (*IMAGES, *SATURATED)]
    images = [
        ImageResult(name=f"test/{defect}/{n:03d}", defect=defect, anomalous=defect != "good", score=random.random())
        for defect in ("good", "crack")
        for n in range(10)
    ]
    thresholds = [
        Threshold(
            rule=rule, level=level, calibrated_on="held-out training images", images=20, value=random.random(),
            rate_of="images", declared_false_positive_rate=0.05, realised_false_positive_rate=random.random(),
        )
        for level in ("image", "pixel")
        for rule in RULES
    ]  # fmt: skip
    return Record(
        key=random.randbytes(32).hex(), fit_key=random.randbytes(32).hex(), status="ok", method=method,
        title=method.replace("_", " "), source="Nobody, nowhere, never", collection=collection, scenario=scenario,
        seed=seed, config={"image_size": 256, "layers": ["layer2", "layer3"]}, preset="embedded",
        deviations=["backbone efficientnet_lite0 instead of wide_resnet50_2"],
        protocol={"center_crop": False, "fpr_limits": [0.05, 0.3, 1.0]}, protocol_hash="5" * 64,
        training_steps=70_000, losses=[(step * 350, random.random()) for step in range(200)],
        data=Data(fingerprint=scenario, train=200, validation=20, test_normal=10, test_anomalous=10),
        metrics={name: random.random() for name in names}, images=images, thresholds=thresholds,
        timings=Timings(decode=1, fit=100, maps=2, metrics=1),
        environment=Environment(
            platform="Linux", python="3.12.3", cpu="A processor", threads=8, device="cuda:0", gpu="A card",
            driver="570.1", packages=dict.fromkeys(("numpy", "numba", "pillow", "scipy", "timm", "torch"), "1.2.3"),
        ),
        command="bench run", created=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=random.randrange(10**6)),
    )  # fmt: skip


def write_run(root: Path, number: int) -> RunStore:
    """Write a run folder; without waiting for the disk, as the store would with each record."""
    store = RunStore(root)
    for made in islice(records(), number):
        folder = store.cell_directory(made)
        folder.mkdir(parents=True)
        (folder / RECORD_FILE).write_text(made.model_dump_json(indent=1) + "\n")
    return store


def seconds(root: Path, number: int) -> dict[str, float]:
    """Time the steps of a report, each as a command takes it."""
    store = write_run(root, number)
    steps = {
        "read": lambda: read_runs([root]),
        "read, say": lambda: make_document(read_runs([root])),
        "read, say, write CSV": lambda: make_report([root], {"csv"}),
        "the report, drawn too": lambda: update_report(store),
        "the report, as it is current": lambda: update_report(store),
    }
    taken = {}
    for name, step in steps.items():
        start = time.process_time()
        step()
        taken[name] = time.process_time() - start
    return taken


def main() -> None:
    """Print a row per step."""
    numbers = [int(argument) for argument in sys.argv[1:]] or RECORDS
    with tempfile.TemporaryDirectory() as folder:
        columns = [seconds(Path(folder) / str(number), number) for number in numbers]
    print(f"| | {' | '.join(f'{number:,} records, s' for number in numbers)} | growth |")
    print("|---|" + "---|" * (len(numbers) + 1))
    for name in columns[0]:
        own = [column[name] for column in columns]
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in own)} | {own[-1] / own[0]:.1f} |")


if __name__ == "__main__":
    main()
