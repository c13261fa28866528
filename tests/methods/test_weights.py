import hashlib
import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from methods.download import Download
from methods.errors import MethodError, WeightsError
from methods.weights.files import default_cache_directory, default_weights_directory, fetch, sha256_of
from methods.weights.sources import identify, locate
from methods.weights.states import load_fitted, read_state

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHERWISE = "take another"


def test_downloads_once(server, tmp_path):
    server.files[f"net-{DIGEST[:8]}.pth"] = CONTENT
    download = Download(f"{server.url}/net-{DIGEST[:8]}.pth", DIGEST[:8])
    for _ in range(2):
        path = fetch(download, tmp_path / "new" / "folder", OTHERWISE)
        assert path == tmp_path / "new" / "folder" / f"net-{DIGEST[:8]}.pth"
        assert path.read_bytes() == CONTENT
    assert len(server.ranges) == 1


def check_message(error, download, directory):
    message = str(error.value)
    for part in (download.file_name, download.url, download.sha256, str(directory / download.file_name)):
        assert part in message
    assert OTHERWISE in message


@pytest.mark.parametrize(
    ("name", "digest", "reason"),
    [
        ("missing.pth", DIGEST, "404 Not Found"),
        ("truncated.pth", DIGEST, "download failed"),
        ("net.pth", "0" * 64, f"server sent a file with SHA-256 {DIGEST}"),
    ],
)
def test_failed_download_says_what_to_do_and_leaves_nothing_that_looks_whole(server, tmp_path, name, digest, reason):
    server.files |= {"truncated.pth": CONTENT, "net.pth": CONTENT}
    server.cut_after = len(CONTENT) // 2 if name == "truncated.pth" else None
    server.knows_ranges = False
    download = Download(f"{server.url}/{name}", digest)
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)
    assert not (tmp_path / name).exists()


def test_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download = Download("http://127.0.0.1:9/net.pth", DIGEST)
    with pytest.raises(WeightsError, match="ConnectionError") as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)


def test_cut_off_download_continues(server, tmp_path):
    server.files["net.pth"], server.cut_after, server.knows_ranges = CONTENT, len(CONTENT) // 2, False
    download = Download(f"{server.url}/net.pth", DIGEST)
    with pytest.raises(WeightsError, match="download failed"):
        fetch(download, tmp_path, OTHERWISE)
    server.cut_after, server.knows_ranges = None, True
    assert fetch(download, tmp_path, OTHERWISE).read_bytes() == CONTENT
    assert server.ranges[-1] == f"bytes={len(CONTENT) // 2}-"


def test_file_put_there_by_hand_is_checked(server, tmp_path):
    download = Download(f"{server.url}/net.pth", DIGEST)
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="is not the file it should be") as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert fetch(download, tmp_path, OTHERWISE).read_bytes() == CONTENT
    assert server.ranges == []


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot get net\.pth"):
        fetch(Download("http://127.0.0.1:9/net.pth", DIGEST), tmp_path / "file", OTHERWISE)


def test_processes_share_one_download(server, tmp_path):
    server.files["net.pth"] = CONTENT
    download = Download(f"{server.url}/net.pth", DIGEST)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.starmap(fetch, [(download, tmp_path, OTHERWISE)] * 3)
    assert paths == [tmp_path / "net.pth"] * 3
    assert len(server.ranges) == 1


def test_digest_follows_the_file(tmp_path: Path):
    path = tmp_path / "file"
    for content in (b"a", b"bc"):
        path.write_bytes(content)
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()


def test_weights_are_kept_in_the_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    assert default_cache_directory() == tmp_path / "cache"
    assert default_weights_directory() == tmp_path / "cache" / "weights"
    for unset in (lambda: monkeypatch.setenv("BENCH_CACHE", ""), lambda: monkeypatch.delenv("BENCH_CACHE")):
        unset()
        assert default_cache_directory() == Path.home() / ".cache" / "anomaly-bench"


def test_the_runner_keeps_its_images_beside_them(monkeypatch, tmp_path):
    from bench.datasets import cache
    from methods.detector import FitContext

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    assert cache.default_cache_directory() == tmp_path
    assert FitContext(seed=0).weights_dir == tmp_path / "weights"


def test_one_grammar(tmp_path, monkeypatch):
    def place(option):
        return locate(option, auto=lambda: Path("published"), embedded=lambda: Path("package"))

    assert (place("random"), place("auto"), place("embedded")) == (None, Path("published"), Path("package"))
    (tmp_path / "own.pth").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place(str(tmp_path / "own.pth")) == place("~/own.pth") == tmp_path / "own.pth"
    with pytest.raises(WeightsError, match=r"no weights file at \S+other\n  Allowed: auto, embedded, random, or"):
        place(str(tmp_path / "other"))
    with pytest.raises(WeightsError, match="no weights file"):
        place(str(tmp_path))


def test_what_a_row_says_of_weights(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"weights")
    for option, source in [("auto", "download"), ("embedded", "embedded"), (str(path), "file")]:
        identity = identify("net", option, path, lambda file: f"tag of {file.name}")
        assert (identity.name, identity.source, identity.tag) == ("net", source, "tag of own.pth")
        assert identity.sha256 == hashlib.sha256(b"weights").hexdigest()
    random = identify("net", "random", None, lambda file: file.name)
    assert (random.source, random.sha256) == ("random", None)


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_state_dicts_are_read(name, tmp_path):
    state = {"weight": torch.arange(3.0)}
    (save_file if name.endswith(".safetensors") else torch.save)(state, tmp_path / name)
    assert torch.equal(read_state(tmp_path / name)["weight"], state["weight"])


class Malicious:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "is not a readable weights file"),
        ("text.pth", b"hello world" * 10, "is not a readable weights file"),
        ("text.safetensors", b"hello world" * 10, "is not a readable weights file"),
        ("list.pth", [1], "does not hold a state dict"),
        ("nested.pth", {"model": {"weight": torch.zeros(1)}}, "does not hold a state dict"),
    ],
)
def test_foreign_files_are_refused_by_name(name, content, message, tmp_path):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match=f"{name} {message}"):
        read_state(path)


def test_reading_runs_no_code(tmp_path):
    torch.save({"weight": Malicious(tmp_path / "harm")}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="is not a readable weights file"):
        read_state(tmp_path / "net.pth")
    assert not (tmp_path / "harm").exists()


def test_states_of_fitted_detectors_are_loaded_strictly():
    module = nn.Linear(2, 1)
    state = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    load_fitted(module, state, "Some Method")
    assert module.weight.tolist() == [[1, 1]]
    for other, reason in [
        ({"weight": torch.ones(1, 2)}, "Missing key.*bias"),
        (state | {"more": torch.ones(1)}, "Unexpected key.*more"),
        (state | {"bias": torch.ones(2)}, "size mismatch for bias"),
    ]:
        with pytest.raises(MethodError, match=f"(?s)not the state of Some Method with these options\n.*{reason}"):
            load_fitted(module, other, "Some Method")
