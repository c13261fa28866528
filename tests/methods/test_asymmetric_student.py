import math

import pytest
import torch
import torch.nn.functional as F

from methods import asymmetric_student
from methods.asymmetric_student import (
    STAGE,
    AsymmetricStudentConfig,
    AsymmetricStudentModule,
    AsymmetricStudentTeacher,
    Student,
    Teacher,
    log_scale,
    negative_log_likelihood,
)
from methods.common.backbones import Backbone
from methods.common.precision import set_precision
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError

SIZE = (64, 96)
SMALL = {"image_size": SIZE, "epochs": 2, "batch_size": 2, "student_channels": 8, "teacher_channels": 4}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def fitted(count=5, scale=1.0, progress=lambda _: None, **options):
    detector = AsymmetricStudentTeacher(make_config(AsymmetricStudentTeacher, "embedded", {**SMALL, **options}))
    with reproducible(0, CPU):
        context = FitContext(seed=0, train_scale=scale, progress=progress)
        detector.fit(ImageSet(images(count)), ImageSet(images(1), []), context)
    return detector


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_defaults_are_the_papers():
    config = AsymmetricStudentConfig()
    assert (config.backbone, config.image_size, config.epochs, config.batch_size) == (
        "efficientnet_b5",
        (768, 768),
        72,
        8,
    )
    deviations = AsymmetricStudentTeacher.deviations
    assert deviations(config, FitContext(0)) == []
    assert deviations(config, FitContext(0, train_scale=0.02)) == ["1.44 of 72 epochs"]
    assert deviations(AsymmetricStudentConfig(epochs=10), FitContext(0)) == ["10 of 72 epochs"]
    embedded = make_config(AsymmetricStudentTeacher, "embedded", {})
    assert deviations(embedded, FitContext(0)) == [
        "backbone efficientnet_lite0",
        "image size (256, 256)",
        "student channels 384",
    ]


def test_epochs_without_their_incomplete_batches():
    length = AsymmetricStudentTeacher.training_length(AsymmetricStudentConfig())
    assert [length.steps(images) for images in (1, 7, 8, 15, 209)] == [144, 144, 144, 144, 2 * 72 * 26]


def test_backbones_without_stages_are_refused():
    with pytest.raises(MethodError, match="resnet18 is no EfficientNet\n  Allowed: efficientnet_b5, efficientnet_lite"):
        AsymmetricStudentConfig(backbone="resnet18")


@pytest.mark.slow
def test_parameters_are_those_of_the_official_networks():
    config, shape = AsymmetricStudentConfig(), (304, 24, 24)
    assert parameters(Student(shape, config)) == 81_421_616
    assert parameters(Teacher(shape, config)) == 3_251_080


def test_likelihood_is_that_of_a_normal_under_the_flow():
    config = AsymmetricStudentConfig(teacher_channels=4, kernels=(3, 1))
    torch.manual_seed(0)
    teacher = Teacher((6, 2, 3), config).double()
    for coupling in teacher.couplings:
        for subnet in (coupling.of_first, coupling.of_second):
            torch.nn.init.constant_(subnet.gamma, 1)
    features = torch.randn(1, 6, 2, 3).double()
    latents, log_determinant = teacher(features)
    jacobian = torch.autograd.functional.jacobian(lambda x: teacher(x)[0].flatten(), features).view(36, 36)
    expected = (0.5 * latents.square().sum() - jacobian.slogdet().logabsdet) / 6
    torch.testing.assert_close(negative_log_likelihood(latents, log_determinant), expected)


def test_an_untrained_teacher_only_permutes():
    teacher = Teacher((304, 2, 2), AsymmetricStudentConfig())
    order = torch.arange(304)
    for number in range(4):
        order = order[teacher.get_buffer(f"order_{number}")]
    features = torch.randn(1, 304, 2, 2)
    assert torch.equal(teacher(features)[0], features[:, order])


def test_scales_are_bounded_softly():
    values = torch.tensor([-1e9, -2.0, 0.0, 0.3, 1e9], dtype=torch.float64)
    expected = [1.9 * 0.636 * math.atan(value / 1.9) for value in values.tolist()]
    assert log_scale(values).tolist() == pytest.approx(expected)


def test_student_adds_residual_blocks():
    torch.manual_seed(0)
    config = AsymmetricStudentConfig(student_channels=4, student_blocks=1)
    student = Student((6, 3, 2), config).eval().double()
    first, _, block, last = student.layers
    features = torch.randn(2, 6, 3, 2).double()
    hidden = F.leaky_relu(first(torch.cat([features, student.encoding.expand(2, -1, -1, -1)], 1)), 0.01)
    convolution, norm, _, *second = block.layers
    inner = F.leaky_relu(norm(convolution(hidden)), 0.01)
    hidden = hidden + F.leaky_relu(second[1](second[0](inner)), 0.01)
    torch.testing.assert_close(student(features), last(hidden))


@pytest.mark.slow
def test_training_teaches_one_after_the_other():
    stages = []
    options = {"count": 3, "epochs": 8, "learning_rate": 1e-3}
    detector = fitted(**options, progress=lambda step: stages.append((step.stage, step.done, step.total)))
    assert detector.training_steps == 16
    assert [step for step, _ in detector.losses] == list(range(1, 17))
    losses = [loss for _, loss in detector.losses]
    assert losses[7] < losses[0]
    assert losses[15] < losses[8]
    assert ("features", 3, 3) in stages
    assert ("teacher", 8, 8) in stages
    assert stages[-1] == ("student", 8, 8)
    assert fitted(**options, scale=0.2).training_steps == 3


@pytest.mark.slow
def test_maps_are_distances_of_the_networks_upsampled():
    detector = fitted()
    asked = images(2, seed=1)
    module = detector.module()
    with torch.no_grad():
        (features,) = module.backbone(asked)
        distances = (module.teacher(features)[0] - module.student(features)).double().square().sum(1) / 192
    maps = F.interpolate(distances[:, None], (16, 24), mode="bicubic", align_corners=False)[:, 0]
    prediction = detector.predict(asked)
    torch.testing.assert_close(prediction.maps, maps.float())
    assert torch.equal(prediction.scores, prediction.maps.flatten(1).amax(1))


@pytest.mark.slow
def test_features_too_large_to_keep_give_the_same_result(monkeypatch):
    expected = fitted().predict(images(2))
    monkeypatch.setattr(asymmetric_student, "FEATURE_BYTES", 0)
    torch.testing.assert_close(fitted().predict(images(2)).maps, expected.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_half_precision_is_close():
    detector = fitted()
    asked = images(2, seed=1)
    expected = detector.predict(asked).maps
    set_precision(detector.module(), "bf16")
    maps = detector.predict(asked).maps
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps, expected, rtol=0.1, atol=0.1 * float(expected.max()))


@pytest.mark.slow
@pytest.mark.parametrize("change", [{"student_channels": 16}, {"kernels": (3, 3)}, {"kernels": (3, 3, 3, 3)}])
def test_a_state_of_other_options_is_refused(change):
    state = fitted(1, epochs=1).module().state_dict()
    with pytest.raises(MethodError, match="not the state of AST with these options"):
        AsymmetricStudentTeacher.restore(make_config(AsymmetricStudentTeacher, "embedded", SMALL | change), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_prediction_and_training_step_on_a_gpu():
    config = make_config(AsymmetricStudentTeacher, "embedded", SMALL)
    with reproducible(0, torch.device("cuda")):
        backbone = Backbone(config.backbone, (STAGE,), "random", None, stages=True)
        module = AsymmetricStudentModule(backbone, config).cuda()
        (features,) = module.backbone(images(2).cuda())
        negative_log_likelihood(*module.teacher(features)).backward()
        F.mse_loss(module.student(features), module.teacher(features)[0].detach()).backward()
    assert module(images(2).cuda())[0].isfinite().all()


def test_before_the_fit():
    with pytest.raises(RuntimeError, match="has not been fitted"):
        AsymmetricStudentTeacher(AsymmetricStudentConfig()).predict(images(1))
