from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from methods import simplenet
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.simplenet import SimpleNet, SimpleNetConfig, SimpleNetModule, _train, truncated_l1
from methods.training_length import Epochs

SIZE = (64, 96)
SMALL = {"image_size": SIZE, "dim": 16, "hidden_dim": 24, "epochs": 3, "batch_size": 3}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(scale=1.0, **options):
    detector = SimpleNet(make_config(SimpleNet, "embedded", {**SMALL, **options}))
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(4)), ImageSet(images(1), []), FitContext(0, train_scale=scale))
    return detector


def heads(**options):
    """The trained part, beside features of no network."""
    with reproducible(0, CPU):
        return SimpleNetModule(SimpleNamespace(grid=(8, 12)), SimpleNetConfig(**{**SMALL, **options}))


def test_defaults_are_the_official_codes():
    config = SimpleNetConfig()
    assert (config.backbone, config.image_size, config.dim) == ("wide_resnet50_2", (288, 288), 1536)
    assert SimpleNet.training_length(config) == Epochs(160, 8)
    assert SimpleNet.deviations(config, FitContext(0)) == []
    assert SimpleNet.deviations(config, FitContext(0, train_scale=0.02)) == ["3.2 of 160 epochs"]
    assert SimpleNet.deviations(SimpleNetConfig(epochs=40, batch_size=4), FitContext(0)) == [
        "batch size 4",
        "40 of 160 epochs",
    ]


def test_the_heads_have_the_papers_parameters():
    module = SimpleNetModule(SimpleNamespace(grid=(36, 36)), SimpleNetConfig())
    assert sum(parameter.numel() for parameter in module.parameters()) == 3_937_792


def test_loss_is_truncated_at_the_margin():
    normal, noisy = torch.tensor([[0.7], [0.2], [-1.0]]), torch.tensor([[-0.9], [0.1], [2.0]])
    literal = sum(max(0.0, 0.5 - value) / 3 for value in (0.7, 0.2, -1.0))
    literal += sum(max(0.0, 0.5 + value) / 3 for value in (-0.9, 0.1, 2.0))
    assert truncated_l1(normal, noisy).item() == pytest.approx(literal)


def discriminated(module, adapted, mean, variance):
    """The discriminator in float64, with the given statistics of its batch norm."""
    first, norm, _, last = module.discriminator
    hidden = adapted @ first.weight.double().T + first.bias.double()
    hidden = norm.weight.double() * (hidden - mean) / (variance + norm.eps).sqrt() + norm.bias.double()
    return torch.where(hidden > 0, hidden, 0.2 * hidden) @ last.weight.double().T


def adapted_by(module, patches):
    return patches.double() @ module.adaptor.weight.double().T + module.adaptor.bias.double()


def test_training_loss_is_that_of_the_equations():
    module = heads(noise=0.3).train()
    patches = torch.randn(50, 16, generator=torch.Generator().manual_seed(1))
    with reproducible(5, CPU):
        loss = module.loss(patches)
    with reproducible(5, CPU), torch.no_grad():
        adapted = adapted_by(module, patches)
        noisy = adapted + 0.3 * torch.randn(50, 16)
        first = module.discriminator[0]
        hidden = torch.cat([adapted, noisy]) @ first.weight.double().T + first.bias.double()
        normal, fake = (
            discriminated(module, part, hidden.mean(0), hidden.var(0, correction=0)) for part in (adapted, noisy)
        )
        literal = (0.5 - normal).clamp_min(0).mean() + (0.5 + fake).clamp_min(0).mean()
    torch.testing.assert_close(loss.double(), literal, rtol=1e-5, atol=0)


def test_maps_and_scores_are_those_of_the_equations():
    detector = fitted()
    module, asked = detector.module(), images(2, seed=1)
    with torch.no_grad():
        patches = module.features(asked).permute(0, 2, 3, 1)
        norm = module.discriminator[1]
        statistics = norm.running_mean.double(), norm.running_var.double()
        scores = -discriminated(module, adapted_by(module, patches), *statistics)[..., 0]
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.scores.double(), scores.flatten(1).amax(1), rtol=1e-4, atol=1e-5)
    for found, coarse in zip(prediction.maps, scores, strict=True):
        upsampled = F.interpolate(coarse[None, None], SIZE, mode="bilinear")[0, 0]
        np.testing.assert_allclose(found.numpy(), gaussian_filter(upsampled.numpy(), 4), rtol=1e-4, atol=1e-5)


def test_the_first_step_is_adam_s_with_the_two_learning_rates():
    """At first, Adam moves each number by its learning rate; decoupled decay shrinks the adaptor's besides."""
    module = heads().train()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    maps = torch.randn(4, 16, 8, 12, generator=torch.Generator().manual_seed(2))

    class Kept(list):
        def __getitem__(self, chosen):
            return [maps[chosen]]

    with reproducible(0, CPU):
        _train(module, Kept([0] * 4), SimpleNetConfig(**SMALL), 1, FitContext(0))
    after = dict(module.named_parameters())
    moved = {name: (after[name] - value).abs().detach() for name, value in before.items()}
    moved["adaptor.weight"] = (after["adaptor.weight"] - before["adaptor.weight"] * (1 - 1e-6)).abs().detach()
    assert moved["adaptor.weight"].median() == pytest.approx(1e-4, rel=1e-3)
    assert moved["discriminator.0.weight"].median() == pytest.approx(2e-4, rel=1e-3)
    assert moved["discriminator.3.weight"].median() == pytest.approx(2e-4, rel=1e-3)


@pytest.mark.slow
def test_training_is_of_whole_epochs_and_lowers_the_loss():
    detector = fitted(epochs=20)
    assert detector.training_steps == 20 * 2  # four images are a batch of three, and one
    assert [step for step, _ in detector.losses] == list(range(1, 41))
    losses = [loss for _, loss in detector.losses]
    assert sum(losses[-10:]) < sum(losses[:10])
    assert fitted(scale=0.5).training_steps == 3


@pytest.mark.slow
def test_the_embedded_noise_can_be_told_from_normal_patches():
    """With a quarter of it, the loss stays at that of an undecided discriminator, 1."""
    photograph = torch.from_numpy(skimage.data.brick()).expand(3, -1, -1)
    views = [photograph[:, top : top + 160, left : left + 160] for top in (0, 160, 320) for left in (0, 160, 320)]
    options = {"image_size": (160, 160), "epochs": 24, "batch_size": 3}
    detector = SimpleNet(make_config(SimpleNet, "embedded", options))
    with reproducible(0, CPU):
        detector.fit(ImageSet(torch.stack(views)), ImageSet(images(1), []), FitContext(0))
    assert np.mean([loss for _, loss in detector.losses[-5:]]) < 0.85


@pytest.mark.slow
def test_features_too_large_to_keep_give_the_same_result(monkeypatch):
    expected = fitted().predict(images(2))
    monkeypatch.setattr(simplenet, "FEATURE_BYTES", 0)
    fitted.cache_clear()
    torch.testing.assert_close(fitted().predict(images(2)).maps, expected.maps, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_restoring_draws_nothing_and_refuses_other_options():
    state = fitted().module().state_dict()
    with reproducible(0, CPU):
        expected = torch.rand(1)
    with reproducible(0, CPU):
        SimpleNet.restore(make_config(SimpleNet, "embedded", SMALL), state)
        assert torch.equal(torch.rand(1), expected)
    with pytest.raises(MethodError, match="not the state of SimpleNet with these options"):
        SimpleNet.restore(make_config(SimpleNet, "embedded", SMALL | {"hidden_dim": 8}), state)


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        SimpleNet(SimpleNetConfig()).predict(images(1))
    with pytest.raises(MethodError, match="at least one training image"):
        SimpleNet(SimpleNetConfig()).fit(ImageSet(images(1), []), ImageSet(images(1), []), FitContext(0))


@pytest.mark.parametrize("options", [{"backbone": "resnet"}, {"dim": 3}, {"epochs": 0}, {"noise": 0}])
def test_bad_options(options):
    with pytest.raises(MethodError):
        make_config(SimpleNet, None, options)
