"""DSR's quantised autoencoder from the internet: an archive of its authors' file, here on a local server."""

import dataclasses
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from file_server import FileServer

from methods.download import Download
from methods.dsr.vq_model import VqModel
from methods.dsr.weights import MEMBER, PUBLISHED, load_vq_model, vq_model_identity
from methods.errors import WeightsError
from methods.weights.catalogue import OTHER_WEIGHTS
from methods.weights.files import sha256_of

Publish = Callable[..., VqModel]


@pytest.fixture
def publish(server: FileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Publish:
    """Serve an autoencoder as its authors do; return it."""

    def call(member: str = MEMBER, digest: str | None = None) -> VqModel:
        torch.manual_seed(1)
        model, content = VqModel(), io.BytesIO()
        torch.save({**model.state_dict(), "_vq_vae_top._ema_w": torch.ones(2)}, content)
        path = tmp_path / "served.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content.getvalue())
        server.files["vq.zip"] = path.read_bytes()
        download = Download(f"{server.url}/vq.zip", digest or sha256_of(path))
        known = dataclasses.replace(OTHER_WEIGHTS[PUBLISHED], download=download)
        monkeypatch.setitem(OTHER_WEIGHTS, PUBLISHED, known)
        return model

    return call


def test_it_is_fetched_once_and_converted(publish: Publish, server: FileServer, tmp_path: Path) -> None:
    published, weights = publish(), tmp_path / "weights"
    for _ in range(2):
        model = VqModel()
        load_vq_model(model, "auto", weights)
        for name, value in published.state_dict().items():
            assert torch.equal(model.state_dict()[name], value), name
    assert len(server.ranges) == 1
    identity = vq_model_identity("auto", weights)
    (converted,) = weights.glob("*.safetensors")
    assert (identity.name, identity.source, identity.sha256) == (PUBLISHED, "download", sha256_of(converted))


def test_an_interrupted_download_is_continued(publish: Publish, server: FileServer, tmp_path: Path) -> None:
    publish()
    server.cut_after, server.knows_ranges = len(server.files["vq.zip"]) // 2, False
    with pytest.raises(WeightsError):
        load_vq_model(VqModel(), "auto", tmp_path / "weights")
    server.cut_after, server.knows_ranges = None, True
    load_vq_model(VqModel(), "auto", tmp_path / "weights")
    assert str(server.ranges[-1]).startswith("bytes=5")  # from about the middle of 12 MB


def test_another_file_is_refused_and_nothing_is_left_that_looks_whole(publish: Publish, tmp_path: Path) -> None:
    publish(digest="0" * 64)
    with pytest.raises(WeightsError, match="SHA-256"):
        load_vq_model(VqModel(), "auto", tmp_path / "weights")
    assert not list((tmp_path / "weights").glob("*.safetensors"))
    assert not list((tmp_path / "weights").glob("*.zip"))


def test_an_archive_without_the_autoencoder_says_what_it_holds(publish: Publish, tmp_path: Path) -> None:
    publish(member="other.pckl")
    with pytest.raises(WeightsError, match=r"other\.pckl"):
        load_vq_model(VqModel(), "auto", tmp_path / "weights")


def test_without_a_network_it_says_what_to_do(publish: Publish, server: FileServer, tmp_path: Path) -> None:
    publish()
    server.files.clear()
    with pytest.raises(WeightsError, match="--preset embedded, or train one with bench distill vq"):
        load_vq_model(VqModel(), "auto", tmp_path / "weights")
