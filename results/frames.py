"""Records as pandas tables, for analyses that no report makes."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from results.record import Record, Threshold
from results.regions import read_regions
from results.store import RunStore

if TYPE_CHECKING:
    import pandas as pd

_CELL = ("method", "title", "collection", "scenario", "seed", "train_scale")


def metrics_frame(*runs: Path | str) -> "pd.DataFrame":
    """Every metric of every cell that worked: a row each.

    Columns: method, title, collection, scenario, seed, train_scale, metric, value (NaN where undefined), undefined
    (the reason, else ``None``), key. Values are fractions.

    Args:
        runs: Run folders.

    Raises:
        ResultError: A record cannot be read.
    """
    rows = [
        (*_cell(record), metric, value, record.undefined.get(metric), record.key)
        for record in _records(runs)
        for metric, value in record.metrics.items()
    ]
    return _frame(rows, (*_CELL, "metric", "value", "undefined", "key"), "value")


def images_frame(*runs: Path | str) -> "pd.DataFrame":
    """The score of every test image of every cell that worked: a row each.

    Columns: method, title, collection, scenario, seed, train_scale, image, defect, anomalous, condition (light or view,
    empty without), score, key.

    Args:
        runs: Run folders.

    Raises:
        ResultError: A record cannot be read.
    """
    rows = [
        (*_cell(record), image.name, image.defect, image.anomalous, image.condition, image.score, record.key)
        for record in _records(runs)
        for image in record.images
    ]
    return _frame(rows, (*_CELL, "image", "defect", "anomalous", "condition", "score", "key"), "score")


def thresholds_frame(*runs: Path | str) -> "pd.DataFrame":
    """Every threshold of every cell that worked: a row each.

    Columns: method, title, collection, scenario, seed, train_scale, those of ``results.record.Threshold`` (NaN where a
    rule declares no rate, or there is no normal test image to realise one), key.

    Args:
        runs: Run folders.

    Raises:
        ResultError: A record cannot be read.
    """
    columns = tuple(Threshold.model_fields)
    rows = [
        (*_cell(record), *(getattr(threshold, column) for column in columns), record.key)
        for record in _records(runs)
        for threshold in record.thresholds
    ]
    frame = _frame(rows, (*_CELL, *columns, "key"), "value")
    return frame.astype({column: "float64" for column in columns if column.endswith("_rate")})


def regions_frame(*runs: Path | str) -> "pd.DataFrame":
    """Every defect region under every cell that worked: a row each.

    Columns: method, title, collection, scenario, seed, train_scale, image, defect, area, saturation (NaN where all
    pixels count), key, and those of ``results.regions.RegionResult.values``. Values are fractions.

    Args:
        runs: Run folders.

    Raises:
        ResultError: A record or a list of regions cannot be read.
    """
    import pandas as pd

    rows = [
        {
            **dict(zip(_CELL, _cell(record), strict=True)),
            **region.model_dump(exclude={"values"}),
            "key": record.key,
            **region.values,
        }
        for run in runs
        for record in _records([run])
        for region in read_regions(RunStore(Path(run)).cell_directory(record))
    ]
    columns = (*_CELL, "image", "defect", "area", "saturation", "key")
    return pd.DataFrame(rows, columns=None if rows else list(columns)).astype({"saturation": "float64"})


def _records(runs: Iterable[Path | str]) -> Iterable[Record]:
    return (record for run in runs for record in RunStore(Path(run)).records() if record.status == "ok")


def _cell(record: Record) -> tuple[object, ...]:
    return (
        record.method,
        record.title,
        record.collection.name,
        record.scenario,
        record.seed,
        record.train_scale,
    )


def _frame(rows: list[tuple[object, ...]], columns: tuple[str, ...], number: str) -> "pd.DataFrame":
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns)).astype({number: "float64"})
