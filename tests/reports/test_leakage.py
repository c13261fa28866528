"""The leakage table: last state, best state, premium."""

from pathlib import Path

import pytest
from record_factory import MVTEC, fail, make_record, write_run

from reports.content.leakage import WARNING, leakage_table
from reports.content.selection import read_runs
from reports.content.tables import Table
from reports.report import FORMATS, make_report
from results.epoch_states import ORACLE_FILE, EpochState, write_epoch_states
from results.errors import ResultError
from results.record import Record
from results.store import RunStore


def states(*values: tuple[float | None, float | None]) -> list[EpochState]:
    return [
        EpochState(epoch=epoch, metrics={"image_au_roc": image, "au_pro@0.3": pixels})
        for epoch, (image, pixels) in enumerate(values, start=1)
    ]


def table_of(root: Path, cells: list[tuple[Record, list[EpochState]]]) -> Table | None:
    write_run(root, [record for record, _ in cells], examples=False)
    for record, own in cells:
        write_epoch_states(RunStore(root).cell_directory(record), own)
    (part,) = read_runs([root]).parts
    return leakage_table(part)


def texts(table: Table) -> list[list[str]]:
    return [[field.text for field in row] for row in table.rows]


def test_the_premium_is_best_minus_last_by_detection(tmp_path: Path) -> None:
    table = table_of(
        tmp_path,
        [
            (make_record("simplenet", scenario="pill"), states((0.9, 0.5), (0.9, 0.7), (0.8, 0.9))),
            (make_record("simplenet", scenario="screw"), states((0.7, 0.4), (None, 0.7), (0.7, 0.6))),
            (make_record("rdpp", scenario="pill"), states((0.25, None), (0.5, 0.8))),
            (make_record("patchcore", scenario="pill"), []),
        ],
    )
    assert table is not None
    localisation = ("75.0 ± 21.2", "45.0 ± 7.1", "−30.0 ± 14.1")
    assert texts(table) == [
        ["RD++", "pill", "2 of 2", "50.0", "50.0", "0.0", "80.0", "80.0", "0.0"],
        ["SimpleNet", "pill", "1 of 3", "80.0", "90.0", "10.0", "90.0", "50.0", "−40.0"],
        ["SimpleNet", "screw", "1 of 3", "70.0", "70.0", "0.0", "60.0", "40.0", "−20.0"],
        ["SimpleNet", "mean", "1 of 3", "75.0 ± 7.1", "80.0 ± 14.1", "5.0 ± 7.1", *localisation],
    ]
    assert not any(field.best for row in table.rows for field in row)
    assert WARNING in [note.text for note in table.notes]


def test_seeds_of_a_scenario_are_averaged(tmp_path: Path) -> None:
    cells = [
        (make_record("rdpp", seed=0), states((0.5, 0.5), (0.25, 0.5))),
        (make_record("rdpp", seed=1), states((0.25, 0.5), (0.5, 0.75))),
    ]
    table = table_of(tmp_path, cells)
    assert table is not None
    assert texts(table)[0][2:6] == ["2 cells", "37.5 ± 17.7", "50.0 ± 0.0", "12.5 ± 17.7"]


def test_it_is_no_part_of_a_report_without_states(tmp_path: Path) -> None:
    assert table_of(tmp_path / "none", [(make_record("rdpp"), []), (fail(make_record("ast"), "no reason"), [])]) is None
    assert not [name for name in make_report([tmp_path / "none"], FORMATS) if "leakage" in name]
    table_of(tmp_path / "some", [(make_record("rdpp"), states((0.5, 0.5)))])
    report = make_report([tmp_path / "some"], FORMATS)
    assert f"tables/{MVTEC.name}-leakage.tex" in report


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    record = make_record("rdpp")
    table_of(tmp_path, [(record, states((0.5, 0.5)))])
    (RunStore(tmp_path).cell_directory(record) / ORACLE_FILE).write_text("[")
    with pytest.raises(ResultError, match=r"oracle\.json is damaged"):
        make_report([tmp_path], FORMATS)
