import dataclasses
import hashlib
import io
import json
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from methods.download import Download
from methods.efficientad.pdn import patch_description_network
from methods.efficientad.teachers import PUBLIC_TEACHERS, load_teacher, teacher_identity
from methods.errors import WeightsError
from methods.weights.catalogue import OTHER_WEIGHTS
from methods.weights.files import sha256_of


def network(size="S"):
    return patch_description_network(size, 384, padding=False)


def numbered(state):
    """The same weights under the names of codes that number their convolutions: conv1.weight, conv1.bias, ..."""
    layers = sorted({int(key.split(".")[0]) for key in state})
    return OrderedDict(
        (f"conv{number}.{kind}", state[f"{layer}.{kind}"])
        for number, layer in enumerate(layers, start=1)
        for kind in ("weight", "bias")
    )


def pickled(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def archive(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def assert_same(first, second):
    for (name, a), (other, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b)


def serve(monkeypatch, download):
    known = OTHER_WEIGHTS[PUBLIC_TEACHERS]
    monkeypatch.setitem(OTHER_WEIGHTS, PUBLIC_TEACHERS, dataclasses.replace(known, download=download))


@pytest.fixture
def publish(server, monkeypatch, tmp_path):
    """Serve an archive as the public teachers."""

    def publish(members, digest=None):
        path = archive(tmp_path / "teachers.zip", members)
        server.files["teachers.zip"] = path.read_bytes()
        url = f"{server.url}/teachers.zip"
        serve(monkeypatch, Download(url, digest or sha256_of(path)))

    return publish


@pytest.mark.slow
@pytest.mark.parametrize(("size", "member"), [("S", "pretrained_teacher_small"), ("M", "pretrained_teacher_medium")])
def test_public_teachers_are_downloaded_once_and_converted(size, member, server, publish, tmp_path):
    published = network(size)
    publish({f"efficientad_pretrained_weights/{member}.pth": pickled(numbered(published.state_dict()))})
    loaded = network(size)
    load_teacher(loaded, size, "auto", tmp_path / "weights")
    assert_same(loaded, published)

    identity = teacher_identity(size, "auto", tmp_path / "weights")
    assert (identity.source, identity.tag) == ("download", "wide_resnet101_2 on ImageNet, nelson1425")
    assert identity.sha256 == sha256_of(tmp_path / "weights" / f"{member}.safetensors")
    assert len(server.ranges) == 1


def test_another_file_than_the_expected_one_is_refused(publish, tmp_path):
    publish({"pretrained_teacher_small.pth": pickled(numbered(network().state_dict()))}, digest="0" * 64)
    with pytest.raises(WeightsError, match=r"SHA-256 [0-9a-f]{64}(.|\n)*0000"):
        teacher_identity("S", "auto", tmp_path / "weights")
    assert not list((tmp_path / "weights").glob("*.zip"))


def test_a_missing_file_says_what_to_do(publish, server, tmp_path):
    publish({"any": b""})
    server.files.clear()
    with pytest.raises(WeightsError, match=r"cannot get teachers\.zip.*\n.*http://127.*\n.*weights/teachers\.zip"):
        teacher_identity("S", "auto", tmp_path / "weights")


def test_a_truncated_download_is_refused_and_not_kept(publish, server, tmp_path):
    publish({"pretrained_teacher_small.pth": pickled(numbered(network().state_dict()))})
    server.cut_after, server.knows_ranges = 1000, False
    with pytest.raises(WeightsError):
        teacher_identity("S", "auto", tmp_path / "weights")
    server.cut_after = None
    assert teacher_identity("S", "auto", tmp_path / "weights").sha256


@pytest.mark.parametrize("name", ["../pretrained_teacher_small.pth", "/tmp/pretrained_teacher_small.pth"])
def test_an_archive_that_reaches_outside_is_refused(name, publish, tmp_path):
    publish({name: pickled(numbered(network().state_dict()))})
    with pytest.raises(WeightsError, match="outside"):
        teacher_identity("S", "auto", tmp_path / "weights")
    assert not (tmp_path / "pretrained_teacher_small.pth").exists()


def test_an_archive_without_the_teacher_says_what_it_holds(publish, tmp_path):
    publish({"readme.txt": b"nothing"})
    with pytest.raises(WeightsError, match=r"should hold pretrained_teacher_small\.pth once; it holds readme\.txt"):
        teacher_identity("S", "auto", tmp_path / "weights")


def test_no_archive_at_all(server, monkeypatch, tmp_path):
    server.files["teachers.zip"] = page = b"<html>sign in first</html>"
    download = Download(f"{server.url}/teachers.zip", hashlib.sha256(page).hexdigest())
    serve(monkeypatch, download)
    with pytest.raises(WeightsError, match="not a readable zip"):
        teacher_identity("S", "auto", tmp_path / "weights")


def test_half_precision_files_are_computed_in_float32(tmp_path):
    teacher = network().half()
    path = tmp_path / "teacher.safetensors"
    settings = {"backbone": "resnet18", "steps": 12, "photographs": "folder (3 images, 0123)"}
    save_file(teacher.state_dict(), path, metadata={"settings": json.dumps(settings)})
    loaded = network()
    load_teacher(loaded, "S", str(path), tmp_path)
    assert_same(loaded, teacher.float())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    identity = teacher_identity("S", str(path), tmp_path)
    assert (identity.source, identity.sha256) == ("file", sha256_of(path))
    assert identity.tag == "distilled from resnet18, 12 steps, folder (3 images, 0123)"


def test_a_state_dict_of_a_sequence_is_read(tmp_path):
    teacher, path = network(), tmp_path / "mine.pth"
    torch.save(teacher.state_dict(), path)
    loaded = network()
    load_teacher(loaded, "S", str(path), tmp_path)
    assert_same(loaded, teacher)
    assert teacher_identity("S", str(path), tmp_path).tag == "mine.pth"


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no weights at all", "not a readable weights file"),
        (pickled(Malicious()), "not a readable weights file"),
        (pickled([torch.zeros(1)]), "does not hold a state dict"),
        (pickled({"conv1.weight": torch.zeros(128, 3, 4, 4)}), "does not hold a teacher of EfficientAD-S"),
        (pickled(network("M").state_dict()), "does not hold a teacher of EfficientAD-S"),
    ],
    ids=["text", "code", "a list", "another network", "another size"],
)
def test_other_files_are_refused(content, message, tmp_path, capsys):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_teacher(network(), "S", str(path), tmp_path)
    assert capsys.readouterr().out == ""


def test_a_missing_file_names_the_choices(tmp_path):
    with pytest.raises(WeightsError, match="allowed: auto, embedded, random"):
        teacher_identity("S", str(tmp_path / "none.pth"), tmp_path)


def test_the_embedded_teacher(tmp_path, monkeypatch):
    own = dataclasses.replace(
        OTHER_WEIGHTS["efficientad_s_teacher"], embedded=lambda _: tmp_path / "teacher_small.safetensors"
    )
    monkeypatch.setitem(OTHER_WEIGHTS, "efficientad_s_teacher", own)
    with pytest.raises(WeightsError, match="the embedded efficientad_s_teacher is missing"):
        teacher_identity("S", "embedded", tmp_path)
    save_file(network().half().state_dict(), tmp_path / "teacher_small.safetensors")
    assert teacher_identity("S", "embedded", tmp_path).source == "embedded"
    load_teacher(network(), "S", "embedded", tmp_path)


def test_random_teachers_stay_as_they_are(tmp_path):
    teacher = network()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    load_teacher(teacher, "S", "random", tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())


@pytest.mark.parametrize("size", ["S", "M"])
def test_the_shipped_teachers_say_how_they_were_made(size, tmp_path):
    load_teacher(network(size), size, "embedded", tmp_path)
    identity = teacher_identity(size, "embedded", tmp_path)
    assert identity.source == "embedded"
    assert identity.tag.startswith("distilled from efficientnet_lite0, ")
    assert (", from EfficientAD-S's teacher on" in identity.tag) == (size == "M")
