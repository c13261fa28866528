import hashlib

import pytest

from methods.download import Download, DownloadError, download_file

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HALF = len(CONTENT) // 2


@pytest.fixture
def served(server):
    server.files["file.zip"] = CONTENT
    return server


def source(server, digest=DIGEST):
    return Download(f"{server.url}/file.zip", digest)


def cut_off(server, target, digest=DIGEST):
    """Fetch half of the file from a server that then breaks off and does not come back."""
    server.cut_after, server.knows_ranges = HALF, False
    with pytest.raises(DownloadError, match="download failed"):
        download_file(source(server, digest), target)
    assert not target.exists()
    server.cut_after, server.knows_ranges = None, True
    server.ranges.clear()


def test_a_file_comes_whole_or_not_at_all(served, tmp_path):
    target = tmp_path / "file.zip"
    seen = []
    assert download_file(source(served), target, lambda done, total: seen.append((done, total))) == DIGEST
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("digest", ["", DIGEST[:8], DIGEST])
def test_the_same_call_continues_where_one_was_cut_off(served, tmp_path, digest):
    target = tmp_path / "file.zip"
    cut_off(served, target, digest)
    seen = []
    assert download_file(source(served, digest), target, lambda done, total: seen.append((done, total))) == DIGEST
    assert served.ranges == [f"bytes={HALF}-"]
    assert target.read_bytes() == CONTENT
    assert seen[0][0] > HALF
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert list(tmp_path.iterdir()) == [target]


def test_a_connection_that_breaks_is_taken_up_again_as_long_as_something_comes(served, tmp_path):
    served.cut_after = len(CONTENT) // 3
    download_file(source(served), tmp_path / "file.zip")
    assert len(served.ranges) == 4
    assert (tmp_path / "file.zip").read_bytes() == CONTENT


def test_the_rest_of_another_version_is_not_appended(served, tmp_path):
    target = tmp_path / "file.zip"
    cut_off(served, target, "")
    served.files["file.zip"] = changed = CONTENT[::-1]
    assert download_file(source(served, ""), target) == hashlib.sha256(changed).hexdigest()
    assert target.read_bytes() == changed


def test_a_shorter_version_replaces_what_has_arrived(served, tmp_path):
    """Without tags the server answers that it has no such part."""
    served.tags = False
    target = tmp_path / "file.zip"
    cut_off(served, target)
    served.files["file.zip"] = changed = CONTENT[: HALF // 2]
    assert download_file(source(served, hashlib.sha256(changed).hexdigest()), target)
    assert target.read_bytes() == changed


def test_without_tags_the_digest_guards_the_rest(served, tmp_path):
    served.tags = False
    target = tmp_path / "file.zip"
    cut_off(served, target)
    download_file(source(served), target)
    assert served.ranges == [f"bytes={HALF}-"]
    assert target.read_bytes() == CONTENT


def test_without_tags_and_digest_nothing_guards_the_rest(served, tmp_path):
    served.tags = False
    target = tmp_path / "file.zip"
    cut_off(served, target, "")
    download_file(source(served, ""), target)
    assert served.ranges == [None]
    assert target.read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(served, tmp_path):
    target = tmp_path / "file.zip"
    cut_off(served, target)
    served.knows_ranges = False
    download_file(source(served), target)
    assert target.read_bytes() == CONTENT


def test_what_has_arrived_whole_is_not_asked_for_again(served, tmp_path):
    target = tmp_path / "file.zip"
    download_file(source(served), target)
    cut_off(served, target.with_name("other"))
    about = tmp_path / "other.part.json"
    (tmp_path / "other.part").write_bytes(CONTENT)  # cut off after the last byte, before the digest was taken
    download_file(source(served), tmp_path / "other")
    assert served.ranges == []
    assert not about.exists()


def test_a_damaged_note_costs_only_time(served, tmp_path):
    target = tmp_path / "file.zip"
    cut_off(served, target, "")
    (tmp_path / "file.zip.part.json").write_text("{")
    download_file(source(served, ""), target)
    assert served.ranges == [None]
    assert target.read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_continued(served, tmp_path):
    target = tmp_path / "file.zip"
    cut_off(served, target, "")
    served.files["second.zip"] = CONTENT[::-1]
    download_file(Download(f"{served.url}/second.zip"), target)
    assert target.read_bytes() == CONTENT[::-1]


def test_a_wrong_file_is_not_kept(served, tmp_path):
    with pytest.raises(DownloadError, match=f"server sent a file with SHA-256 {DIGEST}"):
        download_file(source(served, "0" * 64), tmp_path / "file.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file(served, tmp_path):
    with pytest.raises(DownloadError, match="server answered 404 Not Found"):
        download_file(Download(f"{served.url}/other.zip", DIGEST), tmp_path / "other.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_file_larger_than_the_disk_is_not_begun(served, tmp_path):
    served.announced = 2**60
    with pytest.raises(
        DownloadError, match=r"1,152,921,504,606,846,976 bytes are to come, but there is room for [\d,]+"
    ):
        download_file(source(served), tmp_path / "file.zip")
    assert list(tmp_path.iterdir()) == []


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(DownloadError, match="ConnectionError"):
        download_file(Download("http://127.0.0.1:9/file.zip", DIGEST), tmp_path / "file.zip")
    assert list(tmp_path.iterdir()) == []


def test_the_file_name_has_no_query():
    assert Download("https://example.org/a/file.zip?download=1").file_name == "file.zip"
