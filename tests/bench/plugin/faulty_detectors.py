"""Detectors that each break one promise of the contract, and keep all the others."""

import copy
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import ClassVar

import torch
from tiny_detectors import Tiny, TinyConfig, TinyModule
from torch import nn

from methods.detector import Progress
from methods.errors import WeightsError
from methods.weights.files import WeightIdentity


@dataclasses.dataclass
class UnfrozenConfig:
    side: int = 32
    training_steps: int = 20
    norm: str = "absolute"
    pause: float = 0.0


@dataclasses.dataclass(frozen=True)
class ListConfig(TinyConfig):
    layers: list[int] = dataclasses.field(default_factory=lambda: [1, 2])


@dataclasses.dataclass(frozen=True)
class WeightsConfig(TinyConfig):
    weights: str = "random"


class OptionsNotFrozen(Tiny):
    Config = UnfrozenConfig


class OptionsNotHashable(Tiny):
    Config = ListConfig


class NoTitle(Tiny):
    title = ""


class UnknownPackage(Tiny):
    packages = ("torch", "no-such-package")


class HidesItsOptions(Tiny):
    @classmethod
    def deviations(cls, config, context):
        return []


class DigestMissing(Tiny):
    @classmethod
    def weights(cls, config, weights_dir):
        return [WeightIdentity("net", "download", "of 2021", None)]


class EmbedsNothing(Tiny):
    @classmethod
    def weights(cls, config, weights_dir):
        return [WeightIdentity("net", "download", "of 2021", "0" * 64)]


class BelievesInWeights(Tiny):
    Config = WeightsConfig

    @classmethod
    def weights(cls, config, weights_dir):
        random = config.weights == "random"
        return [
            WeightIdentity(Path(config.weights).stem, *(("random", "", None) if random else ("file", "", "0" * 64)))
        ]


class OpensMissingWeights(BelievesInWeights):
    @classmethod
    def weights(cls, config, weights_dir):
        if config.weights != "random":
            Path(config.weights).read_bytes()
        return super().weights(config, weights_dir)


class NamesNoFile(BelievesInWeights):
    @classmethod
    def weights(cls, config, weights_dir):
        if config.weights != "random":
            raise WeightsError("the weights are missing")
        return super().weights(config, weights_dir)


class Crashes(Tiny):
    def fit(self, train, validation, context):
        raise ZeroDivisionError("nobody expected this")


class Fitted(Tiny):
    """Fits as Tiny does, and something more."""

    def fit(self, train, validation, context):
        super().fit(train, validation, context)
        self.also(self.module(), train, context)

    def also(self, module, train, context):
        raise NotImplementedError


class NotDeterministic(Fitted):
    def also(self, module, train, context):
        module.mean += int.from_bytes(os.urandom(4), "big") / 2**32


class LearnsFromItsObserver(Fitted):
    def also(self, module, train, context):
        module.mean += context.observe is not None


class ShowsAnotherState(Fitted):
    def also(self, module, train, context):
        if context.observe is not None:
            another = self.Module(self.config)
            context.observe(1.0, another)


class CountsEpochsBackwards(Fitted):
    def also(self, module, train, context):
        for epoch in (2.0, 1.0) if context.observe is not None else ():
            context.observe(epoch, module)


class NeedsTwoImages(Fitted):
    def also(self, module, train, context):
        deviations = train[:].float() - train[:].float().mean(0)
        module.mean += 0 * (deviations.square().sum(0) / (len(train) - 1)).mean()


class DividesByColour(Fitted):
    def also(self, module, train, context):
        module.mean /= float(train[:].float().std(1).mean() > 0)


class DividesByContrast(Fitted):
    def also(self, module, train, context):
        module.mean /= float(train[:].float().std((2, 3)).mean() > 0)


class SaysNothing(Tiny):
    def fit(self, train, validation, context):
        super().fit(train, validation, dataclasses.replace(context, progress=lambda _: None))


class CountsFromZero(Fitted):
    def also(self, module, train, context):
        context.progress(Progress("tidying up", 0, 3))


class TrainsLonger(Fitted):
    def also(self, module, train, context):
        self.training_steps += 1


class KeepsNoLosses(Fitted):
    def also(self, module, train, context):
        self.losses = []


class HoldsImagesOutForNothing(Tiny):
    uses_validation = True


class ReadsPhotographs(Fitted):
    def also(self, module, train, context):
        if context.photographs is not None:
            context.photographs.images(self.input_size)


class ReadsNoPhotographs(Tiny):
    uses_photographs = True


class WritesFile(Fitted):
    def also(self, module, train, context):
        Path(os.environ["FAULT_FOLDER"], "log.txt").write_text("fitted")


class WritesTemporaryFile(Fitted):
    """Breaks nothing."""

    def also(self, module, train, context):
        with tempfile.TemporaryFile() as file:
            file.write(bytes(8))
        context.weights_dir.mkdir(parents=True, exist_ok=True)
        (context.weights_dir / "net.lock").write_text("")


class TurnsGradientsOff(Fitted):
    def also(self, module, train, context):
        torch.set_grad_enabled(False)


class PredictsWith(Tiny):
    """Predicts as Tiny does, and something more: ``also`` returns the maps."""

    def __init_subclass__(cls):
        def forward(self, images):
            maps = cls.also(self, images, TinyModule.forward(self, images)[0])
            return maps, maps.flatten(1).amax(1)

        cls.Module = type(f"{cls.__name__}Module", (TinyModule,), {"forward": forward})


class DrawsWhilePredicting(PredictsWith):
    def also(self, images, maps):
        torch.rand(1)
        return maps


class NotFinite(PredictsWith):
    def also(self, images, maps):
        maps[:, 0] = torch.nan
        return maps


class DoublePrecision(PredictsWith):
    def also(self, images, maps):
        return maps.double()


class KeepsTheChannel(PredictsWith):
    def also(self, images, maps):
        return maps[:, None]


class Inverted(PredictsWith):
    def also(self, images, maps):
        return -maps


class Mirrored(PredictsWith):
    def also(self, images, maps):
        return maps.flip(2)


class NormalisesByBatch(PredictsWith):
    def also(self, images, maps):
        return 100 * maps / maps.mean()


class ComparesWithFirst(PredictsWith):
    def also(self, images, maps):
        return maps + maps[:1].mean()


class RemembersImages(PredictsWith):
    def also(self, images, maps):
        self.mean += 0.1 * (self.levels(images).mean(0) - self.mean)
        return maps


class OverwritesImages(PredictsWith):
    def also(self, images, maps):
        images.div_(2) if images.is_floating_point() else images.floor_divide_(2)
        return maps


class LevelsOnly(PredictsWith):
    def also(self, images, maps):
        return maps if images.dtype == torch.uint8 else (self.gray(images.float())[:, 0] - self.mean).abs()


class BranchesOnValues(PredictsWith):
    def also(self, images, maps):
        return maps if maps.max() > 0 else maps + 1


class WideModule(TinyModule):
    def __init__(self, config):
        super().__init__(config)
        self.mean = torch.zeros(config.side, 2 * config.side)

    def forward(self, images):
        maps, scores = super().forward(images)
        return nn.functional.avg_pool2d(maps[:, None], (1, 2))[:, 0], scores


class SquareMapsOfWideImages(Tiny):
    Module = WideModule

    def __init__(self, config):
        super().__init__(config)
        self.input_size = (config.side, 2 * config.side)


class AnotherModuleEachTime(Tiny):
    def module(self):
        return copy.deepcopy(super().module())


class PredictsOtherwise(Tiny):
    def predict(self, images):
        prediction = super().predict(images)
        return dataclasses.replace(prediction, scores=2 * prediction.scores)


class WantsGradients(Fitted):
    def also(self, module, train, context):
        module.gray.requires_grad_(True)


class StaysInTraining(Fitted):
    def also(self, module, train, context):
        module.train()


class ForgetsThatItIsNotFitted(Tiny):
    def module(self):
        return self.fitted.eval()


class HalfState(TinyModule):
    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("mean", self.mean, persistent=False)


class MissesTensor(Tiny):
    Module = HalfState


class AcceptsAnyState(Tiny):
    @classmethod
    def restore(cls, config, state):
        detector = cls(config)
        detector.fitted = cls.Module(config).eval()
        detector.fitted.load_state_dict(state, strict=False)
        return detector


class BrightModule(TinyModule):
    def __init__(self, config):
        super().__init__(config)
        nn.init.constant_(self.gray.weight, 1000.0)


class OverflowsInHalf(Tiny):
    Module = BrightModule


class HalfMaps(TinyModule):
    def levels(self, images):
        dtype = self.gray.weight.dtype
        return super().levels(images).to(dtype)

    def forward(self, images):
        maps, scores = super().forward(images)
        return maps.to(self.gray.weight.dtype), scores


class ReturnsHalf(Tiny):
    Module = HalfMaps


class MisspelledModule(TinyModule):
    networks: ClassVar = ("grey",)


class MisspellsItsNetwork(Tiny):
    Module = MisspelledModule
