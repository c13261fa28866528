import json
import math

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file

from methods.common import patch_distillation
from methods.common.backbones import Backbone
from methods.common.normalisation import Normalise
from methods.common.patch_distillation import (
    PatchTeacherConfig,
    PatchTeacherTraining,
    correlation,
    distil_patch_teacher,
    distillation,
    random_patches,
)
from methods.common.patch_networks import PatchNetwork, patch_stride
from methods.common.patch_teachers import load_patch_teacher, patch_teacher_identity
from methods.detector import ImageSet
from methods.errors import MethodError, WeightsError

CPU = torch.device("cpu")
SMALL = PatchTeacherConfig(backbone="efficientnet_lite0", steps=4, batch_size=4, patch_size=17, learning_rate=1e-3)


class Photographs:
    """A few images of coloured blots."""

    identity = "photographs (5 images, 0123456789ab)"

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        blots = torch.randint(0, 256, (5, 3, 24, 24), generator=torch.Generator().manual_seed(0)).float()
        return ImageSet(F.interpolate(blots, size, mode="bilinear").to(torch.uint8))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(patch_distillation, "PHOTOGRAPH_SIZE", (96, 96))


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_defaults_are_the_papers():
    config = PatchTeacherConfig()
    assert (config.backbone, config.steps, config.batch_size) == ("resnet18", 50_000, 64)
    assert (config.learning_rate, config.weight_decay, config.schedule) == (2e-4, 1e-5, "constant")
    assert (config.grayscale_probability, config.compactness, config.enlargement) == (0.1, 1, 1)
    with pytest.raises(MethodError, match="convolutional backbone"):
        PatchTeacherConfig(backbone="vit_small_patch14_dinov2")


def test_losses_are_those_of_the_equations():
    decoded, target = random(6, 7), random(6, 7, seed=1)
    literal = sum(
        sum((float(a) - float(b)) ** 2 for a, b in zip(*pair, strict=True))
        for pair in zip(decoded, target, strict=True)
    )
    assert distillation(decoded, target).item() == pytest.approx(literal / 6)
    matrix = torch.corrcoef(decoded.T)
    literal = sum(matrix[i, j].item() for i in range(7) for j in range(7) if i != j)
    assert correlation(decoded).item() == pytest.approx(literal)


def test_constant_channels_correlate_with_nothing():
    assert correlation(torch.ones(4, 3)).item() == 0


def test_a_step_minimises_both():
    training = PatchTeacherTraining(PatchTeacherConfig(**{**vars(SMALL), "compactness": 0.5}), Photographs(), None, CPU)
    generator = SMALL.generator_of(3)
    chosen = torch.randint(5, (4,), generator=generator)
    patches = random_patches(Photographs().images((96, 96))[chosen], 17, 0.1, generator)
    with torch.no_grad():
        features = Backbone("efficientnet_lite0", (32,), "auto", None)(patches)[0].mean((2, 3))
        described = training.network.layers(Normalise()(patches)).flatten(1)
        expected = distillation(training.decoder(described), features) + 0.5 * correlation(described)
    before = [parameter.clone() for parameter in training.network.parameters()]
    assert training.step(3) == pytest.approx(expected.item(), rel=1e-5)
    moved = [(new - old).abs().max() for new, old in zip(training.network.parameters(), before, strict=True)]
    assert all(0 < step < 1.1e-3 for step in moved)


def test_patches_are_enlarged_for_the_backbone():
    training = PatchTeacherTraining(PatchTeacherConfig(**{**vars(SMALL), "enlargement": 3}), Photographs(), None, CPU)
    patches = torch.full((2, 3, 17, 17), 77, dtype=torch.uint8)
    (features,) = Backbone("efficientnet_lite0", (32,), "auto", None)(patches.new_full((2, 3, 51, 51), 77))
    torch.testing.assert_close(training.target(patches), features.mean((2, 3)))


def test_patches_are_what_a_resized_image_shows():
    """A linear ramp shows which part of the image a patch is, and how much of it."""
    ramp = torch.arange(128, dtype=torch.uint8).expand(3, 128, 128)
    generator = torch.Generator().manual_seed(0)
    patches = random_patches(ramp.expand(300, -1, -1, -1), 16, 0.5, generator)
    assert patches.shape == (300, 3, 16, 16)
    first, last = patches[:, 0, 8, 2].float(), patches[:, 0, 8, 13].float()
    sizes = 128 / ((last - first) / 11)  # a patch's pixel is so much of the image
    assert 60 < sizes.min() < 80
    assert 220 < sizes.max() < 300
    assert first.min() < 5
    assert last.max() > 122


def test_some_patches_are_gray():
    colourful = torch.tensor([200, 10, 60], dtype=torch.uint8).view(1, 3, 1, 1).expand(400, 3, 64, 64)
    patches = random_patches(colourful, 4, 0.25, torch.Generator().manual_seed(0))
    gray = (patches[:, 0] == patches[:, 2]).flatten(1).all(1)
    assert 70 < gray.sum() < 130
    assert abs(patches[gray][0, 0, 0, 0].item() - (0.299 * 200 + 0.587 * 10 + 0.114 * 60)) < 1


@pytest.mark.slow
def test_a_teacher_is_written_with_its_card_and_loaded(tmp_path):
    out, losses = tmp_path / "teacher.safetensors", []
    distil_patch_teacher(
        SMALL, Photographs(), out, weights_dir=tmp_path, device=CPU, progress=lambda *step: losses.append(step[2])
    )
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    card = out.with_suffix(".md").read_text()
    assert "bench distill patch-teacher --photographs FOLDER" in card
    assert "--patch-size 17" in card
    identity = patch_teacher_identity(17, str(out), tmp_path)
    assert (identity.name, identity.source) == ("patch_teacher_17", "file")
    assert identity.tag == f"distilled from efficientnet_lite0, 4 steps, {Photographs.identity}"
    state = load_file(out)
    for stride in (1, patch_stride(17)):
        network = PatchNetwork(17, stride)
        load_patch_teacher(network, 17, str(out), tmp_path)
        assert not any(parameter.requires_grad for parameter in network.parameters())
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[key].float())
    with pytest.raises(WeightsError, match="does not hold a teacher of 33x33 pixels"):
        load_patch_teacher(PatchNetwork(33), 33, str(out), tmp_path)


def test_no_teacher_is_published_and_one_is_embedded(tmp_path):
    with pytest.raises(
        WeightsError, match=r"published; asked for was one of 65x65[\s\S]*bench distill patch-teacher --patch-size 65"
    ):
        patch_teacher_identity(65, "auto", tmp_path)
    with pytest.raises(WeightsError, match=r"no teacher is embedded but that of 33x33[\s\S]*--preset embedded"):
        patch_teacher_identity(17, "embedded", tmp_path)
    with pytest.raises(WeightsError, match="no weights file at nowhere"):
        patch_teacher_identity(33, "nowhere.pth", tmp_path)
    embedded = patch_teacher_identity(33, "embedded", tmp_path)
    assert embedded.source == "embedded"
    assert embedded.tag.startswith("distilled from efficientnet_lite0")
    assert patch_teacher_identity(33, "random", tmp_path).sha256 is None


def test_the_embedded_teachers_card_is_of_the_file():
    path = patch_distillation.Path(patch_distillation.__file__).parents[1] / "weights/embedded/patch_teacher_33.md"
    with safe_open(path.with_suffix(".safetensors"), "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    card = path.read_text()
    for key, value in settings.items():
        assert f"- {key.replace('_', ' ')}: {value}\n" in card


@pytest.mark.parametrize("options", [{"patch_size": 16}, {"batch_size": 1}, {"enlargement": 0}, {"compactness": -1}])
def test_bad_options(options):
    from pydantic import TypeAdapter, ValidationError

    with pytest.raises(ValidationError):
        TypeAdapter(PatchTeacherConfig).validate_python(options)
