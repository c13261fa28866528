"""``--oracle``: what a stopping rule that looks at the test images would gain, and that no result knows of it."""

import json
from pathlib import Path

import pytest
from cli_support import Command

from results.epoch_states import ORACLE_FILE, read_epoch_states
from results.store import RunStore

SMALL = ("image_size=[64,64]", "backbone=efficientnet_lite0", "dim=32", "hidden_dim=16", "epochs=3", "batch_size=4")


def command(data_root: Path, *more: object) -> list[str]:
    options = [part for option in SMALL for part in ("--set", f"simplenet.{option}")]
    fixed = ("run", "--methods", "simplenet,patchcore", "--datasets", "parts/bolt", "--out", "out")
    patchcore = ("--set", "patchcore.backbone=efficientnet_lite0", "--set", "patchcore.image_size=[64,64]")
    return [*fixed, "--data-root", str(data_root), *options, *patchcore, *map(str, more)]


@pytest.mark.slow
def test_every_epoch_is_evaluated_beside_a_record_that_stays_what_it_is(
    bench: Command, data_root: Path, tmp_path: Path
) -> None:
    assert bench(*command(data_root, "--keep-models")).returncode == 0
    store = RunStore(tmp_path / "out")
    before = {record.method: record for record in store.records()}
    due = json.loads(bench(*command(data_root, "--oracle", "--dry-run", "--json")).stdout)["cells"]
    assert {cell["due"] for cell in due} == {"to run again for the states of its epochs"}

    done = bench(*command(data_root, "--oracle"))
    assert done.returncode == 0, done.stdout + done.stderr
    after = {record.method: record for record in store.records()}
    unlike = {"created", "timings", "command", "environment", "peak_memory"}
    for method, record in after.items():
        assert record.model_dump(exclude=unlike) == before[method].model_dump(exclude=unlike)

    states = read_epoch_states(store.cell_directory(after["simplenet"]))
    assert [state.epoch for state in states] == [1, 2, 3]
    assert len({json.dumps(state.metrics, sort_keys=True) for state in states}) > 1
    last = states[-1].metrics
    assert last == {name: after["simplenet"].metrics[name] for name in last}
    assert {"image_au_roc", "au_pro@0.3"} <= set(last)
    assert read_epoch_states(store.cell_directory(after["patchcore"])) == []
    assert (store.cell_directory(after["patchcore"]) / ORACLE_FILE).exists()
    assert "nothing to do" in bench(*command(data_root, "--oracle")).stdout
    assert "last state and best on test" in (tmp_path / "out" / "report" / "report.md").read_text()


def test_states_of_a_training_are_in_its_own_precision(bench: Command, data_root: Path) -> None:
    done = bench(*command(data_root, "--oracle", "--precision", "bf16", "--dry-run"))
    assert done.returncode == 2
    assert "--oracle evaluates states of a training, which is in fp32, and --precision is bf16" in done.stderr
