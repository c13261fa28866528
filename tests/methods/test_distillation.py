import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from methods.common import photograph_training
from methods.common.backbones import Backbone
from methods.common.precision import cpu_features, lacks_instructions
from methods.detector import ImageSet
from methods.efficientad import distillation_target
from methods.efficientad.distillation import Distillation, DistillationConfig, distill
from methods.efficientad.distillation_target import DistillationTarget, photograph_pool, squares
from methods.efficientad.pdn import TEACHER_CHANNELS, patch_description_network
from methods.efficientad.teachers import load_teacher, teacher_identity
from methods.efficientad.widening import widen
from methods.errors import MethodError

CONFIG = DistillationConfig(backbone="efficientnet_lite0", steps=6, batch_size=2, learning_rate=1e-3)


class Photographs:
    """The same few images at each size."""

    identity = "photographs (4 images, 0123456789ab)"

    def __init__(self, count=4):
        self.count = count
        self.chosen = []

    def images(self, size, *, center_crop=None, limit=None, seed=0):
        generator = torch.Generator().manual_seed(0)
        colours = torch.randint(0, 256, (self.count, 3, 8, 8), generator=generator).float()
        pixels = torch.nn.functional.interpolate(colours, size, mode="bilinear").to(torch.uint8)
        if limit is None:
            return ImageSet(pixels)
        chosen = torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))[:limit]
        self.chosen.append((size, chosen.tolist()))
        return ImageSet(pixels, chosen.tolist())


class Stopped(Exception):
    pass


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A 16x16 grid of features instead of 64x64."""
    monkeypatch.setattr(distillation_target, "BACKBONE_SIZE", (128, 128))
    monkeypatch.setattr(distillation_target, "TEACHER_SIZE", (64, 64))


def run(out, config=CONFIG, photographs=None, stop_after=None, **options):
    steps = []

    def progress(step, total, loss):
        steps.append((step, total, loss))
        if step == stop_after:
            raise Stopped

    photographs = photographs or Photographs()
    distill(config, photographs, out, weights_dir=out.parent, device=torch.device("cpu"), progress=progress, **options)
    return steps


@pytest.mark.slow
def test_distillation_lowers_the_loss_and_says_how_it_was_made(tmp_path):
    out = tmp_path / "teacher.safetensors"
    steps = run(out, checkpoint_every=2)
    assert [step for step, _, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1][2] < 0.98 * steps[0][2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher.md", "teacher.safetensors"]

    state = load_file(out)
    assert {value.dtype for value in state.values()} == {torch.float16}
    with safe_open(out, "pt") as file:
        settings = json.loads(file.metadata()["settings"])
    assert (settings["backbone"], settings["photographs"]) == ("efficientnet_lite0", Photographs.identity)
    card = (tmp_path / "teacher.md").read_text()
    assert "efficientnet_lite0" in card
    assert Photographs.identity in card
    assert "| 6-6 |" in card

    load_teacher(patch_description_network("S", TEACHER_CHANNELS, padding=False), "S", str(out), tmp_path)
    assert teacher_identity("S", str(out), tmp_path).tag == (
        f"distilled from efficientnet_lite0, 6 steps, {Photographs.identity}"
    )


@pytest.mark.slow
@pytest.mark.parametrize("cache_gib", [7.0, 0.0])
def test_an_interrupted_run_continues_to_the_same_teacher(cache_gib, tmp_path):
    config = DistillationConfig(
        backbone="efficientnet_lite0", steps=5, batch_size=2, schedule="cosine", cache_gib=cache_gib
    )
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    losses = run(whole, config, checkpoint_every=2)
    with pytest.raises(Stopped):
        run(parts, config, checkpoint_every=2, stop_after=3)
    assert not parts.exists()
    continued = run(parts, config, checkpoint_every=2)
    assert continued == losses[2:]
    assert whole.read_bytes() == parts.read_bytes()
    assert (tmp_path / "whole.md").read_text() == (tmp_path / "parts.md").read_text()
    assert not (tmp_path / "parts.safetensors.checkpoint").exists()


@pytest.mark.slow
def test_a_checkpoint_of_other_options_is_refused(tmp_path):
    out = tmp_path / "teacher.safetensors"
    with pytest.raises(Stopped):
        run(out, checkpoint_every=1, stop_after=2)
    with pytest.raises(MethodError, match=r"other options \(batch_size: 2 -> 3\)"):
        run(out, replace(CONFIG, batch_size=3))


@pytest.mark.slow
def test_a_run_continued_with_other_steps_follows_their_schedule_and_says_so(tmp_path, monkeypatch):
    rates = []
    step = Distillation.step
    monkeypatch.setattr(
        Distillation,
        "step",
        lambda self, number: rates.append(self.optimizer.param_groups[0]["lr"]) or step(self, number),
    )
    out, config = tmp_path / "teacher.safetensors", replace(CONFIG, steps=40, schedule="cosine", crop=36)
    with pytest.raises(Stopped):
        run(out, config, checkpoint_every=1, stop_after=3)
    shorter = replace(config, steps=5)
    run(out, shorter)
    # The third step's checkpoint was not written any more.
    expected = [*(config.learning_rate_at(number) for number in range(3)), *map(shorter.learning_rate_at, (2, 3, 4))]
    assert rates == expected
    assert "- earlier steps: 40 until step 2\n" in (tmp_path / "teacher.md").read_text()


def test_a_damaged_checkpoint_says_so(tmp_path):
    out = tmp_path / "teacher.safetensors"
    (tmp_path / "teacher.safetensors.checkpoint").write_bytes(b"half a file")
    with pytest.raises(MethodError, match="not a readable checkpoint"):
        run(out)


def test_an_empty_folder_is_an_error(tmp_path):
    with pytest.raises(MethodError, match="no photographs"):
        run(tmp_path / "teacher.safetensors", photographs=Photographs(0))


@pytest.mark.slow
def test_the_medium_teacher(tmp_path):
    out = tmp_path / "teacher.safetensors"
    run(out, replace(CONFIG, size="M", steps=1, batch_size=1))
    load_teacher(patch_description_network("M", TEACHER_CHANNELS, padding=False), "M", str(out), tmp_path)


def test_bf16_trains_or_says_that_the_cpu_cannot(tmp_path):
    out, config = tmp_path / "teacher.safetensors", replace(CONFIG, steps=1, precision="bf16")
    if lacks_instructions("bf16", cpu_features()):
        with pytest.raises(MethodError, match="bf16 is not supported by this CPU"):
            run(out, config)
    else:
        run(out, config)
        assert out.exists()


def test_learning_rates():
    constant = DistillationConfig(steps=100)
    assert {constant.learning_rate_at(step) for step in range(100)} == {1e-4}
    cosine = DistillationConfig(steps=100, schedule="cosine")
    rates = [cosine.learning_rate_at(step) for step in range(100)]
    assert rates[4] == pytest.approx(1e-4)
    assert max(rates) == pytest.approx(1e-4)
    assert rates[99] < 1e-6
    assert DistillationConfig(steps=1, schedule="cosine").learning_rate_at(0) > 0


def test_features_are_normalised_per_channel(tmp_path):
    """Over the photographs drawn, as few as they are, the target has mean 0 and standard deviation 1."""
    backbone = Backbone("efficientnet_lite0", (8, 16), "auto", tmp_path)
    pool = photograph_pool(Photographs(), seed=0)
    target = DistillationTarget(backbone, pool, torch.device("cpu"), cache_bytes=0)
    target.measure(10_000, grayscale_probability=0.0, seed=0)
    features = target(torch.arange(4), torch.zeros(4, dtype=torch.bool)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(features.mean(1), torch.zeros(TEACHER_CHANNELS), atol=1e-3, rtol=0)
    torch.testing.assert_close(features.std(1), torch.ones(TEACHER_CHANNELS), atol=5e-3, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["wide_resnet101_2", "resnext101_32x8d", "densenet201"])
def test_table_8_s_backbones_have_targets_of_the_teacher_s_shape(backbone, tmp_path):
    """PatchCore's levels of all three, at strides 8 and 16."""
    target = DistillationTarget(
        Backbone(backbone, (8, 16), "random", tmp_path), photograph_pool(Photographs(), 0), torch.device("cpu"), 0
    )
    features = target(torch.arange(2), torch.zeros(2, dtype=torch.bool))
    assert features.shape == (2, TEACHER_CHANNELS, 16, 16)
    assert features.isfinite().all()


@pytest.mark.slow
def test_a_large_folder_is_drawn_in_pools(tmp_path, monkeypatch):
    for module in (photograph_training, distillation_target):
        monkeypatch.setattr(module, "POOL", 4)
    photographs = Photographs(9)
    config = replace(CONFIG, steps=5, normalisation_images=6)
    run(tmp_path / "whole.safetensors", config, photographs)
    small, large = ([chosen for size, chosen in photographs.chosen if size == of] for of in ((64, 64), (128, 128)))
    assert all(len(chosen) == 4 for chosen in large)
    assert small[1:] == large  # the first small one only tells that the folder is large
    # Two pools to measure on, then ten draws of images from the first, second and third.
    assert [large.index(chosen) for chosen in large] == [0, 1, 0, 1, 4]
    with pytest.raises(Stopped):
        run(tmp_path / "parts.safetensors", config, photographs, stop_after=3, checkpoint_every=1)
    run(tmp_path / "parts.safetensors", config, photographs)
    whole, parts = (load_file(tmp_path / f"{name}.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.parametrize("size", ["S", "M"])
def test_a_square_s_target_is_what_the_padded_network_says_of_its_patches(size):
    torch.manual_seed(0)
    padded = patch_description_network(size, TEACHER_CHANNELS, padding=True)
    unpadded = patch_description_network(size, TEACHER_CHANNELS, padding=False)
    unpadded.load_state_dict(padded.state_dict())
    images = torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        cut, target = squares(images, padded(images), 40, torch.Generator().manual_seed(1))
        assert cut.shape == (3, 3, 40, 40)
        torch.testing.assert_close(unpadded(cut), target)
    assert len({square.sum().item() for square in cut}) == 3


def test_squares_reach_every_part_of_the_image():
    image = torch.arange(64 * 64).reshape(1, 1, 64, 64)
    generator = torch.Generator().manual_seed(0)
    drawn = [squares(image, torch.zeros(1, 1, 16, 16), 52, generator)[0][0, 0, 0, 0].item() for _ in range(100)]
    assert sorted(set(drawn)) == [row * 64 + column for row in (0, 4, 8, 12) for column in (0, 4, 8, 12)]


def test_distilling_on_squares_is_reproducible_and_another_training(tmp_path):
    config = replace(CONFIG, steps=2, crop=40)
    losses = run(tmp_path / "first.safetensors", config)
    assert losses == run(tmp_path / "second.safetensors", config)
    assert losses != run(tmp_path / "third.safetensors", replace(CONFIG, steps=2))
    assert "--crop 40" in (tmp_path / "first.md").read_text()


def test_a_medium_teacher_can_start_as_a_small_one(tmp_path):
    torch.manual_seed(0)
    # In float64, as CPUs without AVX-512 convolve float32 with more rounding than equality tolerates.
    small = patch_description_network("S", TEACHER_CHANNELS, padding=True).double()
    medium = patch_description_network("M", TEACHER_CHANNELS, padding=True).double()
    widen(small, medium)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    expected, outputs = small(images), medium(images)
    torch.testing.assert_close(outputs, expected)
    outputs.square().mean().backward()
    # What is not read yet learns to be: no layer waits for another.
    assert all(parameter.grad.abs().amax() > 0 for parameter in medium.parameters())
    with pytest.raises(MethodError, match="start=embedded is for size M"):
        replace(CONFIG, start="embedded")


@pytest.mark.slow
def test_distilling_from_a_small_teacher_starts_at_its_loss(tmp_path):
    config = replace(CONFIG, size="M", steps=1, crop=36, start="embedded")
    ((_, _, loss),) = run(tmp_path / "started.safetensors", config)
    ((_, _, anew),) = run(tmp_path / "anew.safetensors", replace(config, start="random"))
    assert loss != anew
    assert "start sha256: " in (tmp_path / "started.md").read_text()
