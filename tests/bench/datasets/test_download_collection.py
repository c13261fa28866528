import hashlib
import io
import os
import subprocess
import sys
import zipfile
from importlib import import_module

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.datasets import download as download_module
from bench.datasets.catalogue import Archive, KnownCollection, PublishedImages, known_collection
from bench.datasets.download import accept_licence, download_collection, folder_of, licence_accepted
from bench.errors import DataError, UsageError

FILES = {"Screws/screw/train/good/000.png": b"train" * 20000, "Screws/readme.txt": b"words"}


def archive_of(server, name, files, **fields):
    """An archive on the test's server, whose address a catalogue would refuse."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for member, content in files.items():
            file.writestr(member, content)
    server.files[name] = content = buffer.getvalue()
    archive = Archive(**({"url": "https://x", "sha256": hashlib.sha256(content).hexdigest()} | fields))
    object.__setattr__(archive, "url", f"{server.url}/{name}")
    return archive


def collection(*archives, **fields):
    return KnownCollection(
        **{
            "name": "screws",
            "title": "Screws",
            "folders": frozenset({"screws"}),
            "layout": "mvtec",
            "images": {"screw": PublishedImages(train=1)},
            "licence": "For screws only.",
            "citation": "Smith 2020",
            "page": "https://example.org/screws",
            "archives": archives,
            **fields,
        }
    )


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def known(server, monkeypatch):
    known = collection(archive_of(server, "screws.zip", FILES, inside="Screws"))
    accept_licence(known)
    monkeypatch.setattr(download_module, "known_by_folder", lambda folder: known if folder.name == "screws" else None)
    monkeypatch.setattr(import_module("bench.commands.data.get"), "published", lambda _: known)
    return known


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


def nothing(*_):
    pass


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_collection_appears_whole(known, root):
    seen = []
    folder = download_collection(known, root, lambda *progress: seen.append(progress))
    assert folder == root / "screws"
    assert names(root) == ["screws/readme.txt", "screws/screw/train/good/000.png"]
    assert {step for step, _, _ in seen} == {"screws.zip", "unpacking screws.zip"}
    assert [(done, total) for step, done, total in seen if "unpacking" in step][-1] == (100005, 100005)


def test_the_same_call_continues_after_an_interruption(known, root, server):
    server.cut_after, server.knows_ranges = 2**16, False
    with pytest.raises(DataError, match=r"cannot get screws\.zip: download failed(.|\n)*same command again"):
        download_collection(known, root, nothing)
    assert not (root / "screws").exists()
    server.cut_after, server.knows_ranges = None, True
    download_collection(known, root, nothing)
    assert server.ranges[-1] == f"bytes={2**16}-"
    assert names(root) == ["screws/readme.txt", "screws/screw/train/good/000.png"]


def test_several_archives_each_in_its_folder_or_nothing(known, root, server, monkeypatch):
    two = collection(
        archive_of(server, "a.zip", {"good/0.png": b"a"}, folder="screw/train"),
        archive_of(server, "b.zip", {"0.png": b"b"}, folder="screw/test/bent"),
    )
    monkeypatch.setattr(download_module, "known_by_folder", lambda folder: two if folder.name == "screws" else None)
    second = server.files.pop("b.zip")
    with pytest.raises(DataError, match=r"cannot get b\.zip: the server answered 404"):
        download_collection(two, root, nothing)
    assert folder_of(two, root) is None
    server.files["b.zip"] = second
    server.ranges.clear()
    download_collection(two, root, nothing)
    assert len(server.ranges) == 1
    assert names(root) == ["screws/screw/test/bent/0.png", "screws/screw/train/good/0.png"]


def test_another_file_than_the_published_one(server, root):
    wrong = collection(archive_of(server, "screws.zip", FILES, sha256="0" * 64))
    accept_licence(wrong)
    with pytest.raises(DataError, match=r"sent a file with SHA-256 \w{64}(.|\n)*fetch http\S+ \(SHA-256 0{64}\)"):
        download_collection(wrong, root, nothing)
    assert not (root / "screws").exists()


def test_a_file_put_there_by_hand_is_checked(known, root, server):
    staging = root / ".screws.partial"
    staging.mkdir(parents=True)
    (staging / "screws.zip").write_bytes(b"another")
    with pytest.raises(DataError, match=r"screws\.zip is not the file it should be"):
        download_collection(known, root, nothing)
    (staging / "screws.zip").write_bytes(server.files["screws.zip"])
    download_collection(known, root, nothing)
    assert server.ranges == []
    assert (root / "screws/readme.txt").exists()


def test_an_archive_that_reaches_outside(server, root):
    evil = collection(archive_of(server, "screws.zip", {"../../evil": b"evil"}))
    accept_licence(evil)
    with pytest.raises(DataError, match="do not trust this archive"):
        download_collection(evil, root, nothing)
    assert not list(root.parent.rglob("evil"))
    assert folder_of(evil, root) is None


def test_a_collection_larger_than_the_disk_is_not_begun(server, root):
    large = collection(archive_of(server, "screws.zip", FILES, bytes=2**60))
    accept_licence(large)
    with pytest.raises(DataError, match=r"needs about 2,305,843,009,213,693,952 bytes(.|\n)*another disk with --to"):
        download_collection(large, root, nothing)
    assert server.ranges == []


def test_offline(server, root, monkeypatch):
    offline = collection(archive_of(server, "screws.zip", FILES))
    object.__setattr__(offline.archives[0], "url", "http://127.0.0.1:9/screws.zip")
    accept_licence(offline)
    with pytest.raises(DataError, match=r"ConnectionError(.|\n)*on another machine, put it at \S+screws\.zip"):
        download_collection(offline, root, nothing)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_that_cannot_be_written(known, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match=r"cannot write Screws to \S+: Permission denied\n.*--to"):
        download_collection(known, tmp_path / "data", nothing)
    tmp_path.chmod(0o700)


def test_a_file_where_the_folder_should_be(known, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write Screws to \S+/file(.|\n)*--to"):
        download_collection(known, tmp_path / "file", nothing)


def test_a_licence_is_accepted_once_and_for_its_words(server, root):
    known = collection(archive_of(server, "screws.zip", FILES), name="nails")
    assert not licence_accepted(known)
    with pytest.raises(UsageError, match="licence of Screws is not accepted"):
        download_collection(known, root, nothing)
    assert server.ranges == []
    accept_licence(known)
    assert licence_accepted(known)
    assert not licence_accepted(collection(*known.archives, name="nails", licence="For all screws."))


# --- the command ---


def get(*arguments):
    return CliRunner().invoke(app, ["data", "get", *map(str, arguments)], env={"COLUMNS": "100"})


def test_the_command_says_how_far_it_is_and_what_is_next(known, root):
    done = get("screws", "--to", root)
    assert done.exit_code == 0, done.output
    for part in ("Screws", "For screws only.", "https://example.org/screws", "screws.zip: 0.1 of 0.1 MB"):
        assert part in done.output
    assert "bench data check screws" in done.output
    assert names(root / "screws")
    again = get("screws", "--to", root)
    assert again.exit_code == 0
    assert f"Screws is there already: {root / 'screws'}" in again.output


def test_without_a_terminal_the_licence_needs_a_flag(known, root, tmp_path):
    (tmp_path / "cache/licences/screws.txt").unlink()
    refused = get("screws", "--to", root)
    assert isinstance(refused.exception, UsageError)
    assert "For screws only." in refused.output
    assert "bench data get screws --accept-licence" in str(refused.exception)
    assert not root.exists()
    assert get("screws", "--to", root, "--accept-licence").exit_code == 0
    assert licence_accepted(known)


def test_a_page_instead_of_a_link(root):
    done = get("mvtec_anomaly_detection", "--to", root)
    assert done.exit_code == 3
    known = known_collection("mvtec_ad")
    assert known.page in done.output
    assert str(root / "mvtec_ad") in done.output
    assert "(bottle, cable, capsule, …)" in done.output
    assert not root.exists()


@pytest.mark.parametrize(("name", "message"), [("elpw", "did you mean 'elpv'"), ("demo", "--datasets demo makes it")])
def test_names_that_cannot_be_fetched(name, message):
    with pytest.raises(UsageError, match=message):
        raise get(name).exception


@pytest.mark.network
@pytest.mark.slow
def test_elpv_comes_from_the_package_index(tmp_path):
    command = [sys.executable, "-m", "bench", "data", "get", "elpv", "--to", str(tmp_path), "--accept-licence"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ConnectionError" in done.stderr:
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "elpv/images").glob("*.png"))) == 2624
    assert (tmp_path / "elpv/labels.csv").read_text().count("\n") == 2624
    assert {path.name for path in tmp_path.iterdir()} == {"elpv", "cache"}
    checked = CliRunner().invoke(app, ["data", "check", "--data-root", str(tmp_path)])
    assert checked.exit_code == 0, checked.output
    assert "elpv/mono, compared with ELPV: good" in checked.output
