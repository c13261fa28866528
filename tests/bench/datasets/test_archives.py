import io
import stat
import tarfile
import zipfile

import pytest

from bench.datasets import archives
from bench.datasets.archives import unpack
from bench.errors import DataError

FILES = {"parts/screw/train/good/000.png": b"one" * 1000, "parts/screw/license.txt": b"words", "readme": b""}


def zipped(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return path


def add(archive, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    archive.addfile(info, io.BytesIO(content))


def zip_link(archive, name, pointed_to):
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(info, pointed_to)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def refuse(archive, folder, message):
    with pytest.raises(DataError, match=message) as error:
        unpack(archive, folder)
    assert str(archive) in str(error.value)
    assert not folder.exists()


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
def test_every_form_whatever_the_name(form, tmp_path):
    mode = f"w:{form.partition('.')[2]}"
    path = zipped(tmp_path / "a", FILES) if form == "zip" else tarred(tmp_path / "a", FILES, mode)
    seen = []
    unpack(path, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert contents(tmp_path / "out") == FILES
    assert seen[-1] == (3005, 3005)


def test_the_content_of_one_folder(tmp_path):
    unpack(zipped(tmp_path / "a.zip", FILES), tmp_path / "out", "parts/screw")
    assert set(contents(tmp_path / "out")) == {"train/good/000.png", "license.txt"}
    with pytest.raises(DataError, match="holds no files in its folder part: its names are parts/screw/train"):
        unpack(tmp_path / "a.zip", tmp_path / "other", "part")


def test_dots_and_slashes_that_change_nothing(tmp_path):
    unpack(tarred(tmp_path / "a.tar", {"./parts//a.png": b"a"}), tmp_path / "out")
    assert contents(tmp_path / "out") == {"parts/a.png": b"a"}


@pytest.mark.parametrize(
    "name", ["../a.png", "parts/../../a.png", "/a.png", "parts\\..\\..\\a.png", "C:\\a.png", "C:a"]
)
@pytest.mark.parametrize("write", [zipped, tarred])
def test_names_that_lead_out(write, name, tmp_path):
    archive = write(tmp_path / "archive", {"good.png": b"good", name: b"a"})
    refuse(archive, tmp_path / "inner" / "out", "a name that leads out of the folder")


def test_folders_that_lead_out(tmp_path):
    refuse(zipped(tmp_path / "a.zip", {"../b/": b""}), tmp_path / "out", "leads out")


def test_a_link_becomes_a_copy(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "parts/links/b.png", type=tarfile.SYMTYPE, linkname="../a.png")
        add(archive, "parts/c.png", type=tarfile.SYMTYPE, linkname="links/b.png")
        add(archive, "parts/a.png", b"content")
        add(archive, "parts/d.png", type=tarfile.LNKTYPE, linkname="parts/a.png")
    unpack(tmp_path / "a.tar", tmp_path / "tar")
    assert set(contents(tmp_path / "tar").values()) == {b"content"}
    assert len(contents(tmp_path / "tar")) == 4
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("parts/a.png", b"content")
        zip_link(archive, "parts/links/b.png", "../a.png")
    unpack(tmp_path / "a.zip", tmp_path / "zip")
    assert contents(tmp_path / "zip") == {"parts/a.png": b"content", "parts/links/b.png": b"content"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


@pytest.mark.parametrize("pointed_to", ["../../secret", "/etc/passwd", "nowhere", "b.png"])
def test_a_link_to_something_else(pointed_to, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "parts/b.png", type=tarfile.SYMTYPE, linkname=pointed_to)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        zip_link(archive, "parts/b.png", pointed_to)
    for path in (tmp_path / "a.tar", tmp_path / "a.zip"):
        refuse(path, tmp_path / "out", r"which is no file of the archive|in a circle")


def test_nothing_is_written_through_a_link(tmp_path):
    """The usual attack: a link to a folder outside, then a file in it."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "parts", type=tarfile.SYMTYPE, linkname=str(tmp_path))
        add(archive, "parts/evil", b"evil")
    refuse(tmp_path / "a.tar", tmp_path / "inner" / "out", "no file of the archive")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices(kind, tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "parts/null", type=kind)
    refuse(tmp_path / "a.tar", tmp_path / "out", "neither a file nor a folder")


def test_permissions_of_strangers_are_not_taken_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        add(archive, "run", b"#!", mode=0o6777)
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out/run").stat().st_mode & 0o6111 == 0


@pytest.mark.parametrize("write", [zipped, tarred])
def test_a_bomb(write, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_GROWS_UNSEEN", 2**16)
    archive = write(tmp_path / "archive", {"zeros": bytes(2**20)})
    refuse(archive, tmp_path / "out", "would unpack to 1,048,576, more than 200 times as many")


def test_contents_larger_than_the_disk(tmp_path):
    """A sparse file, which takes no room itself."""
    size = 2**43
    with (tmp_path / "a.tar").open("wb") as file:
        info = tarfile.TarInfo("large")
        info.size = size
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        try:
            file.truncate(file.tell() + size)
        except OSError:
            pytest.skip("this file system has no files of that size")
    refuse(tmp_path / "a.tar", tmp_path / "out", r"unpacks to 8,796,093,022,208 bytes, but there is room for [\d,]+ in")


@pytest.mark.parametrize("write", [zipped, tarred])
def test_cut_off_or_damaged(write, tmp_path):
    content = write(tmp_path / "archive", {"noise": bytes(range(256)) * 4000}).read_bytes()
    (tmp_path / "archive").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cannot be read .*: delete it and get it again"):
        unpack(tmp_path / "archive", tmp_path / "out")
    (tmp_path / "archive").write_bytes(content[:600] + bytes(100) + content[700:])
    with pytest.raises(DataError, match=r"cannot be read .*: delete it and get it again"):
        unpack(tmp_path / "archive", tmp_path / "out")


def test_a_page_instead_of_an_archive(tmp_path):
    (tmp_path / "a.zip").write_text("<html>sign in first</html>")
    refuse(tmp_path / "a.zip", tmp_path / "out", "neither a ZIP nor a TAR archive: it begins with b'<html>sign in fi'")


def test_an_archive_in_an_archive_is_not_taken_for_it(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"a": b""}).read_bytes()
    unpack(tarred(tmp_path / "a.tar", {"inner.zip": inner}, "w"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"inner.zip": inner}


def test_a_file_and_a_folder_of_one_name(tmp_path):
    with pytest.raises(DataError, match="cannot unpack"):
        unpack(zipped(tmp_path / "a.zip", {"a": b"", "a/b": b""}), tmp_path / "out")
