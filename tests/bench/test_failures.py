"""What goes wrong costs one cell, which says why."""

import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_support import Command, CommandServer, write_scenario
from PIL import Image

from results.record import Record
from results.store import RunStore

pytestmark = pytest.mark.slow
"""Every test starts the command line several times, some seconds each."""


def records_of(out: Path) -> dict[tuple[str, int], Record]:
    return {(record.scenario, record.seed): record for record in RunStore(out).records()}


def test_a_failing_cell_leaves_the_others_unharmed(bench: Command, data_root: Path, tmp_path: Path) -> None:
    command = ("run", "--methods", "tiny", "--datasets", "parts/bolt", "--data-root", data_root, "--out", "out")
    command += ("--seeds", "0,1,2,3,4,5")
    first = bench(*command, TINY="0=allocate 1=kill 2=nan 3=bug 4=error")
    assert first.returncode == 3, first.stdout + first.stderr
    assert "5 of 6 cells failed" in first.stdout
    failures = {seed: record.failure for (_, seed), record in records_of(tmp_path / "out").items()}
    kinds = {seed: failure.kind for seed, failure in failures.items() if failure is not None}
    assert kinds == {0: "memory", 1: "killed", 2: "error", 3: "bug", 4: "error"}
    reasons = {seed: failure.reason for seed, failure in failures.items() if failure is not None}
    assert "SIGKILL" in reasons[1]
    assert "test/dent/000" in reasons[2]
    assert reasons[4] == "the method cannot do this"
    logs = {seed: failure.log_tail for seed, failure in failures.items() if failure is not None}
    assert logs[1] == "about to fit"
    assert "nobody expected this" in logs[3]

    again = bench(*command)
    assert again.returncode == 3
    assert "nothing to do" in again.stdout
    retried = bench(*command, "--retry-failed")
    assert retried.returncode == 0, retried.stdout + retried.stderr
    assert all(record.status == "ok" for record in records_of(tmp_path / "out").values())


def truncate(folder: Path) -> None:
    image = folder / "test/stain/001.png"
    image.write_bytes(image.read_bytes()[:200])


def shrink_mask(folder: Path) -> None:
    Image.new("L", (20, 20), 255).save(folder / "ground_truth/dent/000_mask.png")


def remove_mask(folder: Path) -> None:
    (folder / "ground_truth/dent/001_mask.png").unlink()


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def leave_one(folder: Path) -> None:
    for image in sorted((folder / "train/good").iterdir())[1:]:
        image.unlink()


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, "001.png"),
    "mask_size": (shrink_mask, "has 20×20 pixels"),
    "mask_missing": (remove_mask, "no ground truth"),
    "empty": (empty, "no images"),
    "one_image": (leave_one, "1 image to fit on"),
}
SIZES = {"long": (30, 2000), "smaller_than_a_patch": (7, 9)}


def test_bad_data_fail_their_own_cells(bench: Command, tmp_path: Path) -> None:
    for name, (damage, _) in BROKEN.items():
        write_scenario(tmp_path / "data/bad" / name)
        damage(tmp_path / "data/bad" / name)
    for name, size in SIZES.items():
        write_scenario(tmp_path / "data/bad" / name, size=size)
    run = bench("run", "--methods", "tiny", "--datasets", "bad", "--data-root", "data", "--out", "out")
    assert run.returncode == 3, run.stdout + run.stderr
    records = records_of(tmp_path / "out")
    assert set(records) == {(name, 0) for name in [*BROKEN, *SIZES]}
    assert all(records[name, 0].status == "ok" for name in SIZES)
    for name, (_, expected) in BROKEN.items():
        failure = records[name, 0].failure
        assert failure is not None
        assert failure.kind == "error"
        assert expected in failure.reason
        assert name in (tmp_path / "out/report/report.md").read_text()


def test_a_full_disk_ends_the_run_and_says_so(
    bench: Command, command_line: CommandServer, data_root: Path, tmp_path: Path
) -> None:
    server = command_line.process.pid
    soft, hard = resource.prlimit(server, resource.RLIMIT_FSIZE)
    resource.prlimit(server, resource.RLIMIT_FSIZE, (4000, hard))  # inherited: no file can grow beyond 4 kB
    try:
        command = ("run", "--methods", "tiny", "--datasets", "parts/nut", "--data-root", data_root, "--out", "out")
        full = bench(*command)
    finally:
        resource.prlimit(server, resource.RLIMIT_FSIZE, (soft, hard))
    assert full.returncode == 2, full.stdout + full.stderr
    assert "cannot write out/.work/drafts/" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list(tmp_path.glob("out/cells/*/record.json"))


def test_missing_weights_cost_only_the_cells_of_their_method(bench: Command, data_root: Path, tmp_path: Path) -> None:
    offline = {"HTTPS_PROXY": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_PROXY": "", "no_proxy": ""}
    alone = ("run", "--methods", "patchcore", "--datasets", "parts/nut", "--data-root", data_root)
    both = ("run", "--methods", "patchcore,tiny", *alone[3:], "--out", "out", "--weights-dir", tmp_path / "weights")
    plan = bench(*both, "--dry-run", **offline)
    assert plan.returncode == 0, plan.stdout + plan.stderr
    assert "will fail: no weights" in plan.stdout
    assert "patchcore has no weights, so its cells fail: cannot get wide_resnet101_2-32ee1156.pth" in plan.stdout

    run = bench(*both, **offline)
    assert run.returncode == 3, run.stdout + run.stderr
    assert "1 of 2 cells failed" in run.stdout
    records = {record.method: record for record in RunStore(tmp_path / "out").records()}
    assert records["tiny"].status == "ok"
    failure = records["patchcore"].failure
    assert failure is not None
    assert failure.kind == "error"
    assert "cannot get wide_resnet101_2-32ee1156.pth" in failure.reason
    assert "https://download.pytorch.org/models/wide_resnet101_2-32ee1156.pth" in failure.log_tail
    assert "bench weights import FILE" in failure.log_tail
    assert "wide_resnet101_2-32ee1156.pth" in (tmp_path / "out/report/report.md").read_text()

    nobody = bench(*alone, "--weights-dir", tmp_path / "weights", **offline)
    assert nobody.returncode == 2
    assert "patchcore: cannot get wide_resnet101_2-32ee1156.pth" in nobody.stderr
