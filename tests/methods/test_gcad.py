from functools import cache

import pytest
import torch

from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError, WeightsError
from methods.gcad import detector as gcad
from methods.gcad.detector import Gcad, GcadConfig, GcadModule, branch_losses, skip_weight
from methods.gcad.networks import GlobalAutoencoder, UNet, channel_upsampling

SIZE = (64, 96)
SMALL = {"teacher": "random", "image_size": SIZE, "unet_width": 4, "bottleneck": 8, "jitter": 0.0, "training_steps": 4}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(**options):
    detector = Gcad(make_config(Gcad, None, {**SMALL, **options}))
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(3)), ImageSet(images(2, seed=7)), FitContext(0))
    return detector


def small_module(dtype=torch.float64):
    with reproducible(0, CPU):
        return GcadModule(make_config(Gcad, None, SMALL)).to(dtype)


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_defaults_are_those_of_the_published_configuration():
    config = GcadConfig()
    assert (config.patch_size, config.bottleneck, config.global_channels) == (33, 64, 10)
    assert (config.image_size, config.training_steps) == ((256, 256), 175_000)
    assert (config.learning_rate, config.weight_decay) == (1e-4, 1e-5)
    assert Gcad.deviations(config, FitContext(0)) == []


def test_it_has_the_published_65_million_parameters():
    with torch.device("meta"):
        unet = UNet(128)
        assert parameters(unet) == 31_040_000
        assert parameters(UNet(2)) == 31_031_810  # of the original, whose images are gray, 1152 fewer
        autoencoder = GlobalAutoencoder((256, 256), 64, 10)
    total = 1_616_000 + parameters(unet) + 31_032_330 + parameters(autoencoder)
    assert total == 64_594_484
    assert parameters(GcadModule(GcadConfig())) == total


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (256, 128)])
def test_networks_keep_the_images_size(size):
    pixels = torch.zeros(2, 3, *size)
    with torch.no_grad():
        assert UNet(7, 4)(pixels).shape == (2, 7, *size)
        assert GlobalAutoencoder(size, 8, 10)(pixels).shape == (2, 10, *size)
        assert channel_upsampling(10, 128)(torch.zeros(2, 10, *size)).shape == (2, 128, *size)


def test_without_skips_all_goes_through_the_bottleneck():
    autoencoder = GlobalAutoencoder(SIZE, 8, 10).double()
    first, second = (images(1, seed=seed).double() / 255 for seed in (1, 2))
    torch.nn.init.zeros_(autoencoder.squeeze.weight)
    with torch.no_grad():
        assert torch.equal(autoencoder(first), autoencoder(second))
        assert not torch.allclose(autoencoder(first, skips=0.1), autoencoder(second, skips=0.1))
        torch.testing.assert_close(autoencoder(first, skips=1e-12), autoencoder(first))


def test_skip_connections_fade_over_the_warm_up():
    assert [skip_weight(step, 0.1, 100) for step in (0, 5, 10, 99)] == [1, 0.5, 0, 0]
    assert skip_weight(0, 0, 100) == 0


@pytest.mark.parametrize("imitate", [False, True])
def test_losses_are_those_of_the_equations(imitate):
    module, upsampling = small_module(), channel_upsampling(10, 128).double()
    pixels = images(2).double() / 255
    target = torch.randn(2, 128, *SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    local, of_whole = branch_losses(module, upsampling, pixels, target, skips=0.3, imitate=imitate)

    def mean_squared_norm(difference):
        return difference.square().sum(1).mean()

    described = module.autoencoder(pixels, 0.3)
    l_loc = mean_squared_norm(target - module.local_student(pixels))
    l_kd = mean_squared_norm(target - upsampling(described))
    l_glo = mean_squared_norm(described - module.global_student(pixels))
    torch.testing.assert_close(local, l_loc / 128)
    torch.testing.assert_close(of_whole, l_kd / 128 + imitate * l_glo / 10)


def test_each_loss_trains_its_own_branch():
    module, upsampling = small_module(), channel_upsampling(10, 128).double()
    target = torch.randn(1, 128, *SIZE, dtype=torch.float64)
    local, of_whole = branch_losses(module, upsampling, images(1).double() / 255, target, skips=0.0, imitate=True)
    own = {"local": [module.local_student], "whole": [module.autoencoder, module.global_student, upsampling]}
    for loss, branch, other in ((local, "local", "whole"), (of_whole, "whole", "local")):
        for networks, trained in ((own[branch], True), (own[other], False)):
            of_networks = [parameter for network in networks for parameter in network.parameters()]
            gradients = torch.autograd.grad(loss, of_networks, retain_graph=True, allow_unused=True)
            assert all((gradient is not None) == trained for gradient in gradients)


@pytest.mark.slow
def test_maps_and_scores_are_those_of_the_equations():
    module = fitted().module()
    held_out, asked = images(2, seed=7), images(2, seed=1)
    maps, scores = module(asked)
    module.double()

    def literal(pixels):
        normalised = module.normalise(pixels).double()
        target = (module.teacher(normalised) - module.mean) / module.std
        local = (target - module.local_student(normalised)).square().sum(1)
        return local, (module.autoencoder(normalised) - module.global_student(normalised)).square().sum(1)

    expected = torch.zeros(2, *SIZE, dtype=torch.float64)
    with torch.no_grad():
        for map_, normal in zip(literal(asked), literal(held_out), strict=True):
            expected += (map_ - normal.mean()) / normal.std(correction=0)
        descriptors = module.teacher(module.normalise(images(3)).double())
    torch.testing.assert_close(module.mean[0, :, 0, 0], descriptors.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
    module.float()
    torch.testing.assert_close(maps.double(), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(scores, maps.flatten(1).amax(1))


@pytest.mark.slow
def test_training_lowers_the_loss_of_both_branches():
    detector = fitted(training_steps=40, learning_rate=1e-3)
    assert detector.training_steps == 40
    losses = [loss for _, loss in detector.losses]
    assert losses[3] < losses[0]
    assert sum(losses[-5:]) < sum(losses[5:10])


@pytest.mark.slow
def test_augmented_images_are_described_anew(monkeypatch):
    """As many descriptions as statistics need, and one more for each step; without jitter they are kept."""
    described = []
    original = gcad.GcadModule.target
    monkeypatch.setattr(gcad.GcadModule, "target", lambda self, d: described.append(d) or original(self, d))
    fitted.cache_clear()
    plain = fitted()
    augmented = fitted(jitter=0.3)
    fitted.cache_clear()
    with torch.no_grad():
        known = plain.module().teacher(plain.module().normalise(images(3)))

    def is_known(descriptors):
        return any(torch.allclose(descriptors[0], one, atol=1e-4) for one in known)

    of_plain, of_augmented = described[:4], described[6:10]  # two validation images follow on each training
    assert all(map(is_known, of_plain))
    assert not any(map(is_known, of_augmented))
    assert augmented.training_steps == 4


def test_without_images():
    detector = Gcad(make_config(Gcad, None, SMALL))
    none, some = ImageSet(images(1), []), ImageSet(images(1))
    with pytest.raises(MethodError, match="at least one training image"):
        detector.fit(none, some, FitContext(0))
    with pytest.raises(MethodError, match="validation images and was given none"):
        detector.fit(some, none, FitContext(0))


@pytest.mark.parametrize("options", [{"image_size": (100, 64)}, {"bottleneck": 0}, {"jitter": 1}, {"patch_size": 9}])
def test_bad_options(options):
    with pytest.raises(MethodError, match="GCAD does not take"):
        make_config(Gcad, None, options)


def test_there_is_no_published_teacher(tmp_path):
    with pytest.raises(WeightsError, match="no teacher of S-T and GCAD has been published"):
        Gcad.weights(GcadConfig(), tmp_path)
