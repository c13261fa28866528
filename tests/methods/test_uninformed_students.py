from functools import cache

import pytest
import torch
import torch.nn.functional as F

from methods import uninformed_students
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError, WeightsError
from methods.training_length import Epochs
from methods.uninformed_students import (
    UninformedStudents,
    UninformedStudentsConfig,
    UninformedStudentsModule,
    error_and_variance,
    student_loss,
)

SIZE = (64, 72)
SMALL = {
    "patch_sizes": (33, 65),
    "teachers": ("random", "random"),
    "students": 2,
    "image_size": SIZE,
    "stride": 8,
    "epochs": 2,
}
CPU = torch.device("cpu")


def images(count, seed=0):
    return torch.randint(0, 256, (count, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@cache
def fitted(seed=0, **options):
    detector = UninformedStudents(make_config(UninformedStudents, None, {**SMALL, **options}))
    with reproducible(0, CPU):
        detector.fit(ImageSet(images(3)), ImageSet(images(2, seed=7)), FitContext(seed))
    return detector


def test_defaults_are_the_papers():
    config = UninformedStudentsConfig()
    assert (config.patch_sizes, config.students, config.image_size) == ((17, 33, 65), 3, (256, 256))
    assert (config.stride, config.learning_rate, config.weight_decay) == (1, 1e-4, 1e-5)
    assert UninformedStudents.training_length(config) == Epochs(100, 1)
    assert UninformedStudents.deviations(config, FitContext(0)) == []
    assert "4 of 100 epochs" in UninformedStudents.deviations(UninformedStudentsConfig(epochs=4), FitContext(0))


def test_twelve_networks_have_their_parameters():
    """The tables' 24.0 million; the EfficientAD paper, of networks that are not published, counts 26."""
    parameters = UninformedStudentsModule(UninformedStudentsConfig()).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 4 * (2_996_480 + 1_616_000 + 1_386_624)


def test_error_and_variance_are_those_of_the_equations():
    generator = torch.Generator().manual_seed(0)
    students = torch.randn(3, 2, 5, 4, 4, dtype=torch.float64, generator=generator)
    target = torch.randn(2, 5, 4, 4, dtype=torch.float64, generator=generator)
    maps = error_and_variance(students, target)
    mean = sum(students) / 3
    error = ((mean - target) ** 2).sum(1)
    variance = sum((student**2).sum(1) for student in students) / 3 - (mean**2).sum(1)
    torch.testing.assert_close(maps, torch.stack([error, variance], dim=1))
    alone = error_and_variance(students[:1], target)
    assert torch.equal(alone[:, 1], torch.zeros(2, 4, 4, dtype=torch.float64))


def test_a_student_pays_for_its_squared_distance():
    generator = torch.Generator().manual_seed(0)
    student, target = (torch.randn(2, 5, 3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    literal = torch.stack(
        [(student[b, :, i, j] - target[b, :, i, j]).norm() ** 2 for b in range(2) for i in range(3) for j in range(4)]
    ).mean()
    torch.testing.assert_close(student_loss(student, target), literal)


@pytest.mark.slow
def test_maps_and_scores_are_those_of_the_equations():
    module = fitted().module()
    held_out, asked = images(2, seed=7), images(2, seed=1)

    def literal(scale, pixels):
        """Regression error and predictive variance in float64."""
        normalised = module.normalise(pixels).double()
        teacher, *students = (network.double()(normalised) for network in (scale.teacher, *scale.students))
        target = (teacher - scale.mean.double()) / scale.std.double()
        mean = sum(students) / len(students)
        variance = sum(student.square().sum(1) for student in students) / len(students) - mean.square().sum(1)
        return (mean - target).square().sum(1), variance

    with torch.no_grad():
        maps, scores = module(asked)
        expected = torch.zeros(2, 8, 9, dtype=torch.float64)
        for scale in module.scales:
            descriptors = scale.teacher.double()(module.normalise(images(3)).double())
            torch.testing.assert_close(
                scale.mean[0, :, 0, 0].double(), descriptors.mean((0, 2, 3)), rtol=1e-4, atol=1e-6
            )
            for map_, normal in zip(literal(scale, asked), literal(scale, held_out), strict=True):
                expected += (map_ - normal.mean()) / normal.std(correction=0) / 2
    for scale in module.scales:
        scale.float()
    expected = F.interpolate(expected[:, None], SIZE, mode="bilinear")[:, 0]
    torch.testing.assert_close(maps.double(), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(scores, maps.flatten(1).amax(1))


@pytest.mark.slow
def test_each_student_learns_from_its_own_teacher():
    detector = fitted(epochs=8, learning_rate=1e-3)
    assert detector.training_steps == 24
    losses = [loss for _, loss in detector.losses]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    module, asked = detector.module(), images(3)
    with torch.no_grad():
        normalised = module.normalise(asked)
        targets = [scale.target(scale.teacher(normalised)) for scale in module.scales]
        for own, other, scale in zip(targets, reversed(targets), module.scales, strict=True):
            for student in scale.students:
                described = student(normalised)
                assert student_loss(described, own) < student_loss(described, other)


@pytest.mark.slow
def test_descriptors_too_large_to_keep_give_the_same_result(monkeypatch):
    expected = fitted().predict(images(2))
    monkeypatch.setattr(uninformed_students, "DESCRIPTOR_BYTES", 0)
    fitted.cache_clear()
    torch.testing.assert_close(fitted().predict(images(2)).maps, expected.maps, rtol=1e-4, atol=1e-4)
    fitted.cache_clear()


@pytest.mark.slow
def test_without_images():
    detector = UninformedStudents(make_config(UninformedStudents, None, SMALL))
    none, some = ImageSet(images(1), []), ImageSet(images(1))
    with pytest.raises(MethodError, match="at least one training image"):
        detector.fit(none, some, FitContext(0))
    with pytest.raises(MethodError, match="validation images and was given none"):
        detector.fit(some, none, FitContext(0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_sizes": (33,)}, "one teacher for each patch size"),
        ({"patch_sizes": (), "teachers": ()}, "at least one"),
        ({"patch_sizes": (20, 33, 65)}, "does not take patch_sizes"),
        ({"image_size": (100, 100), "stride": 8}, "multiples of stride 8"),
        ({"stride": 3}, "does not take stride"),
        ({"students": 0}, "does not take students"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(MethodError, match=message):
        make_config(UninformedStudents, None, options)


def test_there_are_no_published_teachers(tmp_path):
    with pytest.raises(WeightsError, match="no teacher of S-T and GCAD has been published"):
        UninformedStudents.weights(UninformedStudentsConfig(), tmp_path)
