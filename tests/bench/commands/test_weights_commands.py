"""``bench weights``: the command line in this process, with a web server of the test's own."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from file_server import FileServer

from bench.cli import main
from methods.download import Download
from methods.weights.catalogue import BACKBONES, OTHER_WEIGHTS, WeightFile
from methods.weights.inventory import keep, look_up

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE_NAME = f"net-{DIGEST[:8]}.pth"

Bench = Callable[..., tuple[int, str]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def bench(weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run ``bench weights``; return its exit code and everything it printed."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments: object) -> tuple[int, str]:
        command = ["bench", "weights", *map(str, arguments), "--weights-dir", str(weights)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out + output.err

    return call


@pytest.fixture
def served(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """A server with the one download that is known; PatchCore takes its features from it."""
    known = dataclasses.replace(BACKBONES["wide_resnet101_2"], download=Download(f"{server.url}/{FILE_NAME}", DIGEST))
    monkeypatch.setitem(BACKBONES, "wide_resnet101_2", known)
    server.files[FILE_NAME] = CONTENT
    return server


def states(bench: Bench) -> dict[str, str]:
    code, output = bench("list", "--json")
    assert code == 0
    return {one["name"]: one["state"] for one in json.loads(output)}


def test_the_list_says_what_is_there_and_who_needs_it(bench: Bench, served: FileServer, weights: Path) -> None:
    (one,) = [one for one in json.loads(bench("list", "--json")[1]) if one["name"] == "wide_resnet101_2"]
    assert one["state"] == "missing"
    assert one["url"] == f"{served.url}/{FILE_NAME}"
    assert one["pinned_sha256"] == DIGEST
    assert one["licence"]
    assert one["methods"]["patchcore"] == ["paper"]
    known = states(bench)
    assert known["efficientnet_lite0"] == known["efficientad_s_teacher"] == "embedded"
    weights.mkdir()
    (weights / FILE_NAME).write_bytes(CONTENT[:-1])
    assert states(bench)["wide_resnet101_2"] == "corrupt"
    (weights / FILE_NAME).write_bytes(CONTENT)
    assert states(bench)["wide_resnet101_2"] == "in cache"
    table = bench("list")[1]
    assert f"{served.url}/{FILE_NAME}" in table
    assert DIGEST[:12] in table


@pytest.mark.parametrize("chosen", [["wide_resnet101_2"], [FILE_NAME], ["--methods", "patchcore"]])
def test_fetch_by_any_name_and_only_once(chosen: list[str], bench: Bench, served: FileServer, weights: Path) -> None:
    for _ in range(2):
        code, output = bench("fetch", *chosen)
        assert code == 0, output
        assert f"wide_resnet101_2 is there: {weights / FILE_NAME}" in output
    assert (weights / FILE_NAME).read_bytes() == CONTENT
    assert len(served.ranges) == 1


def test_what_is_embedded_is_not_fetched(bench: Bench, served: FileServer) -> None:
    code, output = bench("fetch", "--methods", "patchcore,efficientad_s", "--preset", "demo,embedded")
    assert code == 0, output
    assert "efficientnet_lite0 is there" in output
    assert "efficientad_s_teacher is there" in output
    assert served.ranges == []


def test_a_fetch_that_was_cut_off_continues(bench: Bench, served: FileServer, weights: Path) -> None:
    served.cut_after, served.knows_ranges = len(CONTENT) // 2, False
    code, output = bench("fetch", "wide_resnet101_2")
    assert code == 3
    assert f"cannot get {FILE_NAME}: download failed" in output
    assert not (weights / FILE_NAME).exists()
    served.cut_after, served.knows_ranges = None, True
    code, output = bench("fetch", "wide_resnet101_2")
    assert code == 0, output
    assert served.ranges[-1] == f"bytes={len(CONTENT) // 2}-"
    assert (weights / FILE_NAME).read_bytes() == CONTENT
    assert "1.0 of 1.0 MB" in output


def test_a_wrong_file_is_refused(bench: Bench, served: FileServer, weights: Path) -> None:
    served.files[FILE_NAME] = CONTENT[::-1]
    code, output = bench("fetch", "wide_resnet101_2")
    assert code == 3
    assert f"server sent a file with SHA-256 {hashlib.sha256(CONTENT[::-1]).hexdigest()}" in output
    assert [path.suffix for path in weights.iterdir()] in ([], [".lock"])


def test_offline_says_what_to_bring_and_the_others_are_fetched(
    bench: Bench, served: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = WeightFile("of the test", "any", download=Download("http://127.0.0.1:9/far.pth", "0" * 64))
    monkeypatch.setitem(OTHER_WEIGHTS, "far", offline)
    code, output = bench("fetch", "far", "vit_small_patch16_dinov3", "wide_resnet101_2")
    assert code == 3
    for part in ("far: cannot get far.pth", "ConnectionError", f"http://127.0.0.1:9/far.pth (SHA-256 {'0' * 64})"):
        assert part in output
    assert "bench weights import FILE" in output
    assert "vit_small_patch16_dinov3: no download is pinned" in output
    assert "vit_small_patch16_dinov3.lvd1689m at Hugging Face" in output
    assert "wide_resnet101_2 is there" in output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fetch", "wide_resnet101"], "unknown weights 'wide_resnet101'; did you mean 'wide_resnet101_2'?"),
        (["fetch"], "say which weights"),
        (["fetch", "--all", "resnet18"], "say which weights"),
        (["fetch", "--methods", "patchcor"], "did you mean 'patchcore'?"),
        (["fetch", "--methods", "patchcore", "--preset", "embeded"], "did you mean 'embedded'?"),
        (["fetch", "resnet18", "--preset", "embedded"], "say which weights"),
        (["import", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: list[str], expected: str, bench: Bench, served: FileServer) -> None:
    code, output = bench(*arguments)
    assert code == 2
    assert expected in output
    assert served.ranges == []


def test_verify_names_what_is_corrupt_and_fetch_replaces_it(bench: Bench, served: FileServer, weights: Path) -> None:
    code, output = bench("verify")
    assert code == 0
    assert "0 of 0 files" in output
    weights.mkdir()
    (weights / FILE_NAME).write_bytes(CONTENT[:-1])
    code, output = bench("verify")
    assert code == 3
    assert f"corrupt: {weights / FILE_NAME}: its SHA-256 is" in output
    assert f"expected {DIGEST}" in output
    assert "bench weights fetch wide_resnet101_2 replaces it" in output
    assert json.loads(bench("verify", "--json")[1])[0]["state"] == "corrupt"
    assert bench("fetch", "wide_resnet101_2")[0] == 0
    code, output = bench("verify")
    assert code == 0
    assert "1 of 1 files" in output


def test_import_recognises_files_whatever_they_are_called(
    bench: Bench, served: FileServer, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "usb.bin").write_bytes(CONTENT)
    code, output = bench("import", tmp_path / "usb.bin")
    assert code == 0, output
    assert f"wide_resnet101_2 is there: {weights / FILE_NAME}" in output
    assert (weights / FILE_NAME).read_bytes() == CONTENT
    assert {path.name for path in weights.iterdir()} <= {FILE_NAME, f"{FILE_NAME}.lock"}
    assert (tmp_path / "usb.bin").exists()
    assert bench("import", tmp_path / "usb.bin")[0] == 0
    assert served.ranges == []


def test_import_from_the_folders_of_torch_and_hugging_face(
    bench: Bench, served: FileServer, weights: Path, tmp_path: Path
) -> None:
    checkpoints, hub = tmp_path / "torch/hub/checkpoints", tmp_path / "huggingface/hub/models--some--net"
    checkpoints.mkdir(parents=True)
    (checkpoints / FILE_NAME).write_bytes(CONTENT)
    (checkpoints / "other.pth").write_bytes(b"other")
    assert bench("import", tmp_path / "torch")[0] == 0
    (weights / FILE_NAME).unlink()

    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots/1").mkdir(parents=True)
    (hub / "blobs" / DIGEST).write_bytes(CONTENT)
    (hub / "snapshots/1/model.safetensors").symlink_to("../../blobs/" + DIGEST)
    (hub / "blobs" / ("0" * 64)).write_bytes(b"a model of somebody else")
    code, output = bench("import", hub)
    assert code == 0, output
    assert (weights / FILE_NAME).read_bytes() == CONTENT


def test_import_mends_what_is_corrupt(bench: Bench, served: FileServer, weights: Path, tmp_path: Path) -> None:
    weights.mkdir()
    (weights / FILE_NAME).write_bytes(CONTENT[:-1])
    (tmp_path / "usb.bin").write_bytes(CONTENT)
    assert bench("import", tmp_path / "usb.bin")[0] == 0
    assert look_up("wide_resnet101_2", weights).state == "in cache"


def test_import_of_what_nobody_knows(bench: Bench, served: FileServer, tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(CONTENT[:-1])
    code, output = bench("import", tmp_path / "mine.pth")
    assert code == 2
    assert "of 1 files that could be read none is known" in output
    assert f"{tmp_path / 'mine.pth'} is none of the files of bench weights list" in output
    assert "--set METHOD.backbone_weights=PATH" in output
    (tmp_path / "usb.bin").write_bytes(CONTENT)
    code, output = bench("import", tmp_path / "mine.pth", tmp_path / "usb.bin")
    assert code == 3
    assert f"not imported: {tmp_path / 'mine.pth'}" in output
    assert "wide_resnet101_2 is there" in output


def test_import_of_what_cannot_be_read(
    bench: Bench, served: FileServer, weights: Path, users_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (users_folder / "secret.pth").write_bytes(CONTENT)
    (users_folder / "secret.pth").chmod(0)
    code, output = bench("import", users_folder / "secret.pth")
    assert code == 2
    assert f"{users_folder / 'secret.pth'} cannot be read: Permission denied" in output


def test_import_to_where_nothing_can_be_written(
    bench: Bench, served: FileServer, weights: Path, tmp_path: Path
) -> None:
    weights.touch()
    (tmp_path / "usb.bin").write_bytes(CONTENT)
    code, output = bench("import", tmp_path / "usb.bin")
    assert code == 2
    assert f"cannot keep {tmp_path / 'usb.bin'} in {weights}: " in output
    assert "--weights-dir" in output


def test_import_onto_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A file with a hole is larger than any disk."""
    source, download = tmp_path / "usb.bin", Download(f"http://127.0.0.1:9/{FILE_NAME}", DIGEST)
    with source.open("wb") as file:
        os.truncate(file.fileno(), 2**43)
    with pytest.raises(Exception, match=r"cannot keep \S+usb\.bin in \S+: .*there is room for"):
        keep(source, download, tmp_path / "cache")
    assert not (tmp_path / "cache" / FILE_NAME).exists()
