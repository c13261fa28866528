import json
import math
import subprocess
import sys

import pytest
from pydantic import ValidationError

from results.errors import ResultError
from results.migrations import load_record
from results.record import SCHEMA_VERSION, Failure, Record
from results.schema import SCHEMA_FILE, schema_text


def changed(record: Record, **changes) -> Record:
    return Record.model_validate({**record.model_dump(), **changes})


def test_a_golden_file_of_every_version_is_read(golden):
    for version in range(1, SCHEMA_VERSION + 1):
        record = load_record(golden / f"record_v{version}.json")
        assert record.schema_version == SCHEMA_VERSION
        assert record.metrics == {"image_au_roc": 0.8125, "au_pro@0.3": 0.7, "au_pro_q1@0.3": None}
        assert record.losses == [(0, 12.5), (699, 3.25)]
        assert record.config["strides"] == [8, 16]


@pytest.mark.parametrize(("device", "tf32"), [("cpu", False), ("cuda:0", True)])
def test_records_of_a_gpu_from_before_tf32_was_switched_off_say_so(tmp_path, golden, device, tf32):
    document = json.loads((golden / "record_v2.json").read_text())
    document["environment"]["device"] = device
    (tmp_path / "record.json").write_text(json.dumps(document))
    record = load_record(tmp_path / "record.json")
    assert record.tf32 is tf32
    assert ("TF32" in record.deviations) is tf32
    assert record.fit_key is None


def test_the_schema_in_the_repository_is_that_of_the_record():
    assert SCHEMA_FILE.read_text() == schema_text(), "write it anew with: python -m results.schema"


def test_the_current_version_writes_what_it_reads(golden, record):
    document = json.loads((golden / f"record_v{SCHEMA_VERSION}.json").read_text())
    assert json.loads(record.model_dump_json()) == document


def test_floats_survive_bit_by_bit(record):
    value = math.nextafter(0.1, 1)
    copy = changed(record, metrics={"image_au_roc": value})
    assert Record.model_validate_json(copy.model_dump_json()).metrics["image_au_roc"] == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is damaged"),
        ('{"schema_version": 1, "key"', "is damaged"),
        ("[1, 2]", "is not a record"),
        ('{"schema_version": "one"}', "is not a record"),
        ('{"schema_version": 0}', "this installation reads 1 to"),
        ('{"schema_version": 99}', "a newer one"),
        ('{"schema_version": 1}', f"does not follow schema version {SCHEMA_VERSION}"),
    ],
)
def test_unreadable_files_are_named_with_the_next_step(tmp_path, text, expected):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(ResultError, match=expected) as caught:
        load_record(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"nowhere\.json: No such file"):
        load_record(tmp_path / "nowhere.json")


def test_a_record_that_does_not_say_its_version_is_refused(tmp_path, record):
    path = tmp_path / "record.json"
    path.write_text(record.model_dump_json(exclude={"schema_version"}))
    with pytest.raises(ResultError, match="has no schema_version"):
        load_record(path)


def test_an_unknown_field_is_refused(tmp_path, record):
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**json.loads(record.model_dump_json()), "surprise": 1}))
    with pytest.raises(ResultError, match="surprise"):
        load_record(path)


def test_a_record_cannot_contradict_itself(record):
    with pytest.raises(ValidationError, match="if and only if"):
        changed(record, status="failed")
    with pytest.raises(ValidationError, match="if and only if"):
        changed(record, failure=Failure(kind="error", reason="no"))
    with pytest.raises(ValidationError, match=r"need a reason.*au_pro@0\.3"):
        changed(record, metrics={"au_pro@0.3": None})
    with pytest.raises(ValidationError, match="finite"):
        changed(record, metrics={"au_pro@0.3": math.nan})


def test_reading_results_is_light():
    code = "import sys, results.store; print([m for m in ('torch', 'numpy', 'pandas', 'PIL') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
