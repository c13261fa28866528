import pytest
import torch
import torch.nn.functional as F
from torch.profiler import profile

from methods import fastflow
from methods.common.precision import set_precision
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError
from methods.fastflow import FastFlow, FastFlowConfig, FastFlowModule, _draws, _LevelFlow, _loss

SIZE = (32, 64)
SMALL = {"image_size": SIZE, "training_steps": 4, "batch_size": 3}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(scale=1.0, progress=lambda _: None, **options):
    detector = FastFlow(make_config(FastFlow, "embedded", {**SMALL, **options}))
    context = FitContext(seed=0, train_scale=scale, progress=progress)
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(5)), ImageSet(images(1), []), context)
    return detector


def test_defaults_are_the_papers():
    config = FastFlowConfig()
    assert (config.image_size, config.training_steps) == ((256, 256), 200)
    assert config.backbone == "wide_resnet50_2.racm_in1k"
    assert FastFlow.training_length(config) == 200
    assert FastFlow.deviations(config, FitContext(0)) == []
    assert FastFlow.deviations(config, FitContext(0, train_scale=0.01)) == ["2 of 200 training steps"]
    assert FastFlow.deviations(FastFlowConfig(training_steps=50), FitContext(0)) == ["50 of 200 training steps"]
    assert FastFlow.deviations(FastFlowConfig(backbone="wide_resnet50_2"), FitContext(0)) == [
        "backbone wide_resnet50_2"
    ]


def test_log_determinant_is_that_of_the_jacobian():
    shape = (4, 2, 2)
    with reproducible(3, CPU):
        flow = _LevelFlow(shape, FastFlowConfig(flow_steps=3)).double()
        level = torch.randn(1, *shape).double()
    normed = flow.norm(level)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.flow(x)[0].flatten(), normed).view(16, 16)
    torch.testing.assert_close(flow(level)[1][0], jacobian.slogdet().logabsdet)
    latents, log_determinant = flow(level)
    torch.testing.assert_close(_loss(*flow(level)), (0.5 * latents.square().sum() - log_determinant).squeeze())


def test_subnets_alternate_their_kernels():
    def kernels(**options):
        flow = _LevelFlow((6, 4, 4), FastFlowConfig(flow_steps=4, **options))
        return [block.subnet[0].kernel_size[0] for block in flow.flow]

    with reproducible(0, CPU):
        assert kernels() == [3, 1, 3, 1]
        assert kernels(conv3x3_only=True) == [3, 3, 3, 3]


@pytest.mark.slow
def test_training_lowers_the_loss_and_is_recorded():
    stages = []
    detector = fitted(training_steps=12, batch_size=5, progress=lambda step: stages.append((step.stage, step.done)))
    assert detector.training_steps == 12
    assert [step for step, _ in detector.losses] == list(range(1, 13))
    assert detector.losses[-1][1] < detector.losses[0][1]
    assert ("features", 5) in stages
    assert stages[-1] == ("training", 12)
    assert fitted(scale=0.5).training_steps == 2


@pytest.mark.slow
def test_maps_are_the_mean_of_the_levels_likelihoods_upsampled():
    detector = fitted()
    asked = images(2, seed=1)
    module = detector.module()
    maps = []
    with torch.no_grad():
        for flow, level in zip(module.flows, module.backbone(asked), strict=True):
            likelihood = torch.exp(-0.5 * flow(level)[0].square().mean(1, keepdim=True))
            maps.append(F.interpolate(-likelihood, SIZE, mode="bilinear")[:, 0])
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.maps, torch.stack(maps).mean(0))
    assert -1 <= prediction.maps.min() <= prediction.maps.max() <= 0
    assert torch.equal(prediction.scores, prediction.maps.flatten(1).amax(1))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 2])
def test_features_too_large_to_keep_give_the_same_result(kept, monkeypatch):
    expected = fitted().predict(images(2))
    per_image = 4 * sum(channels * SIZE[0] * SIZE[1] // stride**2 for channels, stride in ((24, 4), (40, 8), (112, 16)))
    monkeypatch.setattr(fastflow, "FEATURE_BYTES", kept * per_image)
    torch.testing.assert_close(fitted().predict(images(2)).maps, expected.maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("count", "size"), [(1, 32), (5, 3), (7, 7), (10, 4)])
def test_every_image_is_drawn_once_before_any_is_drawn_again(count, size):
    draws = _draws(count, size, torch.Generator().manual_seed(0))
    drawn = [next(draws) for _ in range(3 * count)]
    assert {len(batch) for batch in drawn} == {min(size, count)}
    order = torch.cat(drawn)[: 2 * count].view(2, count)
    assert order.sort(1).values.tolist() == [list(range(count))] * 2


@pytest.mark.slow
def test_restored_and_exported_detectors_say_the_same():
    detector = fitted()
    asked = images(2, seed=1)
    expected = detector.predict(asked)
    exported = torch.export.export(detector.module(), (asked,), strict=False).module()
    for maps, scores in (detector.module()(asked / 255), exported(asked)):
        torch.testing.assert_close(maps, expected.maps)
        torch.testing.assert_close(scores, expected.scores)
    state = {name: value.clone() for name, value in detector.module().state_dict().items()}
    restored = FastFlow.restore(detector.config, state)
    prediction = restored.predict(asked)
    assert torch.equal(prediction.maps, expected.maps)
    assert torch.equal(prediction.scores, expected.scores)
    for module in (detector.module(), restored.module()):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert all(parameter.grad is None for parameter in module.parameters())


@pytest.mark.slow
def test_restoring_leaves_the_random_generators_alone():
    state = fitted().module().state_dict()
    config = make_config(FastFlow, "embedded", SMALL)
    with reproducible(0, CPU):
        expected = torch.rand(1)
    with reproducible(0, CPU):
        FastFlow.restore(config, state)
        assert torch.equal(torch.rand(1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"flow_steps": 4}, {"image_size": (64, 64)}, {"backbone": "resnet18"}])
def test_a_state_of_other_options_is_refused(change):
    state = fitted().module().state_dict()
    with pytest.raises(MethodError, match="not the state of FastFlow with these options"):
        FastFlow.restore(make_config(FastFlow, "embedded", SMALL | change), state)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_finite_and_close(precision):
    detector = fitted()
    asked = images(2, seed=1)
    expected = detector.predict(asked)
    set_precision(detector.module(), precision)
    assert not [v for v in detector.module().state_dict().values() if v.dtype == torch.float32]
    prediction = detector.predict(asked)
    assert prediction.maps.dtype == torch.float32
    torch.testing.assert_close(prediction.maps, expected.maps, rtol=0, atol=0.1)


def small_module():
    config = make_config(FastFlow, "embedded", SMALL)
    with reproducible(0, CPU):
        return FastFlowModule(fastflow.Backbone(config.backbone, fastflow.STRIDES, "random", None), config)


@pytest.mark.slow
def test_prediction_and_training_step_wait_for_nothing():
    """On a GPU each of these operators would make the host wait for it."""
    module = small_module()
    with profile() as profiler:
        module(images(2))
        module.loss(module.backbone(images(2))).backward()
    assert not {event.key for event in profiler.key_averages()} & {"aten::item", "aten::nonzero"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_prediction_and_training_step_on_a_gpu():
    module = small_module().cuda()
    asked = images(2).cuda()

    def step():
        loss = module.loss(module.backbone(asked))
        loss.backward()
        return module(asked)[0], loss.detach()

    step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        maps, loss = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert maps.isfinite().all()
    assert loss.isfinite()


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        FastFlow(FastFlowConfig()).predict(images(1))
