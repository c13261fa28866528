import math
import re
from pathlib import Path

import pytest

from results.errors import ResultError
from results.frames import images_frame, metrics_frame
from results.record import Failure, Record
from results.store import RunStore

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def run(tmp_path, record) -> Path:
    store = RunStore(tmp_path / "runs/RUN")
    store.write(record)
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


def test_of_no_records_there_is_an_empty_table(tmp_path):
    assert metrics_frame(tmp_path).empty
    assert list(images_frame(tmp_path).columns)[-2:] == ["score", "key"]


def test_a_damaged_record_is_named(run):
    next(run.glob("cells/*/record.json")).write_text("{")
    with pytest.raises(ResultError, match="is damaged"):
        metrics_frame(run)


def test_the_readmes_example_runs(run, tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "efficientad_s" in capsys.readouterr().out
