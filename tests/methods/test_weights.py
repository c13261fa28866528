import hashlib
import multiprocessing
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from methods.errors import WeightsError
from methods.weights.files import Download, fetch, sha256_of

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
OTHERWISE = "take another"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path == "/missing.pth":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path == "/truncated.pth" else CONTENT)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.requests = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_downloads_once(server, tmp_path):
    download = Download(f"{server.url}/net-{DIGEST[:8]}.pth", DIGEST[:8])
    for _ in range(2):
        path = fetch(download, tmp_path / "new" / "folder", OTHERWISE)
        assert path == tmp_path / "new" / "folder" / f"net-{DIGEST[:8]}.pth"
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1


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
def test_failed_download_says_what_to_do_and_leaves_nothing(server, tmp_path, name, digest, reason):
    download = Download(f"{server.url}/{name}", digest)
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {f"{name}.lock"}


def test_unreachable_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    download = Download("http://127.0.0.1:9/net.pth", DIGEST)
    with pytest.raises(WeightsError, match="ConnectionError") as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)


def test_file_put_there_by_hand_is_checked(server, tmp_path):
    download = Download(f"{server.url}/net.pth", DIGEST)
    (tmp_path / "net.pth").write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match="is not the file it should be") as error:
        fetch(download, tmp_path, OTHERWISE)
    check_message(error, download, tmp_path)
    (tmp_path / "net.pth").write_bytes(CONTENT)
    assert fetch(download, tmp_path, OTHERWISE).read_bytes() == CONTENT
    assert server.requests == []


def test_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match=r"cannot get net\.pth"):
        fetch(Download("http://127.0.0.1:9/net.pth", DIGEST), tmp_path / "file", OTHERWISE)


def test_processes_share_one_download(server, tmp_path):
    download = Download(f"{server.url}/net.pth", DIGEST)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        paths = pool.starmap(fetch, [(download, tmp_path, OTHERWISE)] * 3)
    assert paths == [tmp_path / "net.pth"] * 3
    assert len(server.requests) == 1


def test_digest_follows_the_file(tmp_path: Path):
    path = tmp_path / "file"
    for content in (b"a", b"bc"):
        path.write_bytes(content)
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()
