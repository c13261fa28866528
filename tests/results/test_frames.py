import math
import re
from pathlib import Path

import pytest

from results.errors import ResultError
from results.frames import images_frame, metrics_frame, regions_frame, thresholds_frame
from results.record import Failure, Record
from results.regions import RegionResult, write_regions
from results.store import RunStore

REGIONS = [
    RegionResult(image="test/dent/000", defect="dent", area=area, values={"overlap@0.05": overlap, "au_pro@0.3": 0.5})
    for area, overlap in ((10, 0.0), (40, 0.75))
]
README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def run(tmp_path, record) -> Path:
    store = RunStore(tmp_path / "runs/RUN")
    store.write(record)
    write_regions(store.cell_directory(record), REGIONS)
    failed = {"key": "ab" * 32, "status": "failed", "failure": Failure(kind="error", reason="no"), "metrics": {}}
    store.write(Record.model_validate({**record.model_dump(), **failed, "undefined": {}, "images": []}))
    return store.root


def test_a_row_per_metric_with_the_reason_of_what_is_undefined(run, record):
    frame = metrics_frame(run)
    assert dict(zip(frame["metric"], frame["value"], strict=True)) == pytest.approx(
        {name: math.nan if value is None else value for name, value in record.metrics.items()}, nan_ok=True
    )
    assert frame.loc[frame["value"].isna(), "undefined"].tolist() == list(record.undefined.values())
    assert set(frame["key"]) == {record.key}
    assert frame["value"].dtype == "float64"


def test_a_row_per_image(run, record):
    frame = images_frame(run, run)
    assert len(frame) == 2 * len(record.images)
    assert frame["score"].tolist()[: len(record.images)] == [image.score for image in record.images]
    assert frame["anomalous"].dtype == bool
    assert frame["condition"].tolist()[:2] == ["overexposed", "regular"]


def test_a_row_per_threshold(run, record):
    frame = thresholds_frame(run)
    assert len(frame) == len(record.thresholds) == 1
    row = frame.iloc[0]
    assert (row["rule"], row["level"], row["value"]) == ("fpr0.05", "image", 0.5)
    assert (row["declared_false_positive_rate"], row["realised_false_positive_rate"]) == (0.05, 0.0)
    assert thresholds_frame().empty


def test_a_row_per_region(run, record):
    frame = regions_frame(run)
    assert frame["area"].tolist() == [10, 40]
    assert frame["overlap@0.05"].tolist() == [0.0, 0.75]
    assert frame["saturation"].isna().all()
    assert set(frame["key"]) == {record.key}
    (file,) = run.glob("cells/*/regions.json")
    file.write_text("[{}]")
    with pytest.raises(ResultError, match=r"regions\.json is damaged"):
        regions_frame(run)


def test_of_no_records_there_is_an_empty_table(tmp_path):
    assert metrics_frame(tmp_path).empty
    assert list(images_frame(tmp_path).columns)[-2:] == ["score", "key"]
    assert regions_frame(tmp_path).empty


def test_a_damaged_record_is_named(run):
    next(run.glob("cells/*/record.json")).write_text("{")
    with pytest.raises(ResultError, match="is damaged"):
        metrics_frame(run)


def test_the_readmes_example_runs(run, tmp_path, monkeypatch, capsys):
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL) if "frames" in code]
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    output = capsys.readouterr().out
    assert "efficientad_s" in output
    assert "test/dent/000" in output
    assert "efficientad_s 40.0" in output
