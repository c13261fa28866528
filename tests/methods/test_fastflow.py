import numpy as np
import pytest
import torch

from methods import fastflow
from methods.detector import FitContext, ImageSet
from methods.fastflow import FastFlow, FastFlowConfig, _draws, _LevelFlow, _seeded
from methods.registry import make_config

SMALL = {"image_size": (32, 64), "training_steps": 4, "batch_size": 3}


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, 32, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(scale=1.0, **options):
    detector = FastFlow(make_config(FastFlow, "embedded", {**SMALL, **options}))
    detector.fit(ImageSet(images(5)), ImageSet(images(1)), FitContext(seed=0, train_scale=scale))
    return detector


def test_defaults_are_the_papers():
    config = FastFlowConfig()
    assert (config.backbone, config.image_size, config.training_steps) == ("wide_resnet50_2", (256, 256), 200)
    assert FastFlow.deviations(config, FitContext(0)) == []
    assert FastFlow.deviations(config, FitContext(0, train_scale=0.01)) == ["2 of 200 training steps"]
    assert FastFlow.deviations(FastFlowConfig(training_steps=50), FitContext(0)) == ["50 of 200 training steps"]


def test_log_determinant_is_that_of_the_jacobian():
    shape = (4, 2, 2)
    with _seeded(3):
        flow = _LevelFlow(shape, FastFlowConfig(flow_steps=3)).double()
        level = torch.randn(1, *shape).double()
    normed = flow.norm(level)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.flow(x)[0].flatten(), normed).view(16, 16)
    torch.testing.assert_close(flow(level)[1][0], jacobian.slogdet().logabsdet)
    latents, log_determinant = flow(level)
    torch.testing.assert_close(flow.loss(level), (0.5 * latents.square().sum() - log_determinant).squeeze())


def test_subnets_alternate_their_kernels():
    def kernels(**options):
        with _seeded(0):
            flow = _LevelFlow((6, 4, 4), FastFlowConfig(flow_steps=4, **options))
        return [block.subnet[0].kernel_size[0] for block in flow.flow]

    assert kernels() == [3, 1, 3, 1]
    assert kernels(conv3x3_only=True) == [3, 3, 3, 3]


def test_training_lowers_the_loss_and_is_recorded():
    detector = fitted(training_steps=12, batch_size=5)
    assert detector.training_steps == 12
    assert [step for step, _ in detector.losses] == list(range(1, 13))
    assert detector.losses[-1][1] < detector.losses[0][1]
    assert fitted(scale=0.5).training_steps == 2


def test_maps_lie_between_minus_one_and_zero():
    maps = fitted().anomaly_map(images(2, seed=1))
    assert maps.shape == (2, 32, 64)
    assert maps.min() >= -1
    assert maps.max() <= 0


def test_features_too_large_to_keep_give_the_same_result(monkeypatch):
    kept = fitted().predict(images(2))
    monkeypatch.setattr(fastflow, "CACHE_BYTES", 0)
    torch.testing.assert_close(fitted().predict(images(2)).maps, kept.maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(1, 32), (5, 3), (7, 7), (10, 4)])
def test_every_image_is_drawn_once_before_any_is_drawn_again(count, size):
    draws = _draws(count, size, torch.Generator().manual_seed(0))
    drawn = [next(draws) for _ in range(3 * count)]
    assert {len(batch) for batch in drawn} == {min(size, count)}
    order = torch.cat(drawn)[: 2 * count].view(2, count)
    assert order.sort(1).values.tolist() == [list(range(count))] * 2


def test_seeded_puts_both_generators_back():
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    expected = torch.get_rng_state()
    with _seeded(5):
        first = (torch.rand(1).item(), np.random.rand())  # noqa: NPY002
    with _seeded(5):
        assert first == (torch.rand(1).item(), np.random.rand())  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
