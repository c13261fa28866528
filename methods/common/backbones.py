"""Frozen pretrained feature extractors and the identity of their weights."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from methods.common.normalisation import Normalise
from methods.common.precision import run_network
from methods.common.torchvision_import import import_torchvision
from methods.errors import MethodError, WeightsError
from methods.weights.catalogue import BackboneSpec, backbone_spec, embedded_file, published_file
from methods.weights.files import WeightIdentity
from methods.weights.sources import identify, locate
from methods.weights.states import read_state


def backbone_identity(name: str, weights: str, weights_dir: Path) -> WeightIdentity:
    """Identify the weights that ``Backbone(name, ..., weights, weights_dir)`` loads.

    Args:
        name: A key of ``methods.weights.catalogue.BACKBONES``.
        weights: ``auto`` (download, or the package that carries them), ``embedded``, ``random``, or a file's path.
        weights_dir: Where downloads are kept.

    Raises:
        WeightsError: The file is missing or not the expected one.
    """
    spec = backbone_spec(name)
    weights = _option(spec, weights)
    published = weights in ("auto", "embedded")
    path = _weights_file(name, weights, weights_dir)
    return identify(name, weights, path, lambda file: spec.tag if published else file.name)


def _option(spec: BackboneSpec, weights: str) -> str:
    return "embedded" if weights == "auto" and spec.download is None and spec.embedded is not None else weights


def _weights_file(name: str, weights: str, weights_dir: Path) -> Path | None:
    return locate(
        _option(backbone_spec(name), weights),
        auto=lambda: published_file(name, weights_dir),
        embedded=lambda: embedded_file(name, weights_dir),
    )


class Backbone(nn.Module):
    """Frozen feature extractor in evaluation mode that normalises its images itself.

    The batch normalisations of a convolutional network are folded into its convolutions where that is exact, and
    these run in channels_last layout: the same features up to float32 rounding, faster.

    Args:
        name: A key of ``methods.weights.catalogue.BACKBONES``.
        levels: Which feature maps to return, in ascending order. Of a convolutional network, by their stride in
            pixels (4, 8, 16 or 32): the output of the last block at that resolution. Of a transformer, by the block
            that they are the output of, counted from 0. Deeper blocks are left out.
        weights: As in :func:`backbone_identity`. Random ones come from torch's global generator. ``None`` leaves the
            network without values, for a state dict to be loaded.
        weights_dir: Where downloads are kept.
        final_norm: Apply a transformer's last normalisation to every level; convolutional networks have none.
        stages: The levels are stages of an EfficientNet, counted from 0, and not strides.

    Attributes:
        network: Normalised images to feature maps; what half precision casts.
        channels: Channels of each returned map.

    Raises:
        MethodError: Unknown name or level.
        WeightsError: The weights cannot be had or are not this network's.
    """

    def __init__(
        self,
        name: str,
        levels: tuple[int, ...],
        weights: str | None,
        weights_dir: Path,
        *,
        final_norm: bool = False,
        stages: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        self._spec = backbone_spec(name)
        self.normalise = Normalise(self._spec.mean, self._spec.std)
        # Before the device is chosen: what a package computes while it is imported would lie there too.
        import_torchvision()
        import timm  # noqa: F401

        def build(device: str) -> tuple[nn.Module, tuple[int, ...]]:
            with torch.device(device):
                if self._spec.kind == "transformer":
                    return _transformer(self._spec, name, levels, final_norm)
                return (_staged if stages else _convolutional)(self._spec, name, levels)

        self.network, self.channels = build("meta" if weights is None else "cpu")
        in_state = weights is not None or _all_in_state(self.network)
        if not in_state:
            with torch.random.fork_rng([]):  # the initial weights, which a state replaces, are drawn
                self.network, self.channels = build("cpu")
        path = None if weights is None else _weights_file(name, weights, weights_dir)
        if path is not None:
            state = _pretrained_state(self._spec, path)
            names = {key.replace(".", "_"): key for key in state}
            needed = {key: names[key.removeprefix("model.").replace(".", "_")] for key in self.network.state_dict()}
            self.network.load_state_dict({key: state[original] for key, original in needed.items()})
        self.eval().requires_grad_(False)
        if self._spec.kind == "convolutional":
            _fold_batch_norms(self.network)
            nn.utils.convert_conv2d_weight_memory_format(self.network, torch.channels_last)
        if weights is None and in_state:
            self.network.to_empty(device="cpu")

    def train(self, mode: bool = True) -> "Backbone":
        """Stay in evaluation mode: the extractor is frozen, its batch statistics too."""
        return super().train(False)

    def grid(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Height and width of each returned map for images of a height and width; runs without any arithmetic.

        Raises:
            MethodError: A transformer's patches do not divide the image.
        """
        if self._spec.kind == "transformer":
            _check_patches(self.name, self.network, size)
        parts = [*self.network.named_parameters(), *self.network.named_buffers()]
        shapes = {name: tensor.to("meta") for name, tensor in parts}
        images = torch.empty(1, 3, *size, dtype=parts[0][1].dtype, device="meta")
        with torch.no_grad():
            maps: list[Tensor] = torch.func.functional_call(self.network, shapes, (images,))
        return [(int(level.shape[2]), int(level.shape[3])) for level in maps]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map RGB images (B, 3, H, W), uint8 0-255 or floating 0-1, to float32 feature maps (B, C, h, w)."""
        normalised = self.normalise(images)
        if self._spec.kind == "convolutional":
            normalised = normalised.contiguous(memory_format=torch.channels_last)
        features: list[Tensor] = run_network(self.network, normalised)
        return features


def _all_in_state(network: nn.Module) -> bool:
    """Whether the state dict holds all buffers; not those of DINOv3's positions, which are computed at the start."""
    state = network.state_dict()
    return all(name in state for name, _ in network.named_buffers())


def _convolutional(spec: BackboneSpec, name: str, strides: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Feature maps of the given strides, and their channels."""
    import timm

    with torch.device("meta"):
        known = timm.create_model(spec.architecture, features_only=True).feature_info.reduction()
    _check_levels(name, "strides", strides, known)
    levels = tuple(known.index(stride) for stride in strides)
    network = timm.create_model(spec.architecture, features_only=True, out_indices=levels, **spec.arguments)
    return network, tuple(network.feature_info.channels())


def _staged(spec: BackboneSpec, name: str, stages: tuple[int, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    """Feature maps of the given stages of an EfficientNet, and their channels."""
    import timm

    backbone_spec(name, stages=True)
    network = timm.create_model(spec.architecture, **spec.arguments)
    _check_levels(name, "stages", stages, list(range(len(network.blocks))))
    staged = _Stages(network, stages)
    convolutions = (
        [part for part in staged.blocks[stage].modules() if isinstance(part, nn.Conv2d)] for stage in stages
    )
    return staged, tuple(own[-1].out_channels for own in convolutions)


class _Stages(nn.Module):
    """An EfficientNet of timm up to the last of some stages, whose outputs (B, C, h, w) it returns."""

    def __init__(self, network: Any, stages: tuple[int, ...]) -> None:
        super().__init__()
        self.conv_stem, self.bn1 = network.conv_stem, network.bn1
        self.blocks = network.blocks[: stages[-1] + 1]
        self.stages = stages

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.bn1(self.conv_stem(images))
        maps = []
        for number, stage in enumerate(self.blocks):
            features = stage(features)
            if number in self.stages:
                maps.append(features)
        return maps


def _transformer(
    spec: BackboneSpec, name: str, blocks: tuple[int, ...], final_norm: bool
) -> tuple[nn.Module, tuple[int, ...]]:
    """Tokens of the given blocks' outputs as maps, without those that belong to no patch, and their channels."""
    import timm

    transformer = timm.create_model(spec.architecture, dynamic_img_size=True)
    _check_levels(name, "blocks", blocks, list(range(len(transformer.blocks))))
    return _Tokens(transformer, blocks, final_norm), (transformer.embed_dim,) * len(blocks)


class _Tokens(nn.Module):
    """A transformer of timm up to the last of some blocks, whose patch tokens it returns as maps (B, C, h, w)."""

    def __init__(self, transformer: Any, blocks: tuple[int, ...], final_norm: bool) -> None:
        super().__init__()
        self.model = transformer
        self.blocks = list(blocks)
        self.final_norm = final_norm
        self.model.prune_intermediate_layers(self.blocks, prune_norm=not final_norm)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.model.forward_intermediates(
            images, indices=self.blocks, norm=self.final_norm, intermediates_only=True
        )
        return maps


def _check_levels(name: str, kind: str, levels: tuple[int, ...], known: list[int]) -> None:
    unknown = [level for level in levels if level not in known]
    if unknown or list(levels) != sorted(set(levels)):
        given, allowed = (", ".join(map(str, numbers)) for numbers in (levels, known))
        raise MethodError(f"{name} has no such levels: {kind} {given}\n  Allowed: some of {allowed}, in this order.")


def _check_patches(name: str, network: nn.Module, size: tuple[int, int]) -> None:
    patch: tuple[int, int] = network.get_submodule("model.patch_embed").patch_size  # type: ignore[assignment]
    if any(side % length for side, length in zip(size, patch, strict=True)):
        raise MethodError(
            f"{name} cuts images into patches of {patch[0]}x{patch[1]} pixels, which do not divide "
            f"{size[0]}x{size[1]}\n  Use an image size of multiples of {patch[0]}."
        )


def _pretrained_state(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    """State dict of the whole pretrained network under timm's names; names and shapes are checked."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(spec.architecture, **spec.arguments)
    expected: dict[str, Tensor] = network.state_dict()
    state = _renamed(read_state(path), network)
    if spec.in_order and state.keys() != expected.keys() and len(state) == len(expected):
        state = dict(zip(expected, state.values(), strict=True))
    for key in expected.keys() - state.keys():
        if key.endswith(".num_batches_tracked"):  # counted since 2018, and never used here
            state[key] = torch.tensor(0)
    for key in sorted(state.keys() ^ expected.keys()):
        problem = "is missing" if key in expected else "is not part of it"
        raise WeightsError(f"{path} does not hold the weights of {spec.architecture}: {key} {problem}")
    for key, tensor in expected.items():
        if state[key].shape != tensor.shape:
            shapes = f"{tuple(state[key].shape)}, not {tuple(tensor.shape)}"
            raise WeightsError(f"{path} does not hold the weights of {spec.architecture}: {key} has shape {shapes}")
    return state


def _renamed(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Names of published files that differ from timm's: torchvision's old DenseNets, and DINOv2."""
    if "mask_token" in state:
        from timm.models.vision_transformer import checkpoint_filter_fn

        converted: dict[str, Tensor] = checkpoint_filter_fn(state, network)
        return converted
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key): state[key] for key in state}


class _LayerTracer(fx.Tracer):
    """Traces down to convolutions and batch normalisations, whatever class they are of."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(module, name)


def _fold_batch_norms(network: nn.Module) -> None:
    """Merge batch normalisations into convolutions; what remains of one is its activation.

    That is exact where a normalisation takes a convolution's output, nothing else takes it, and both run once. In a
    DenseNet half of the normalisations take concatenated outputs instead: they stay.
    """
    from timm.layers import Conv2dSame

    modules = dict(network.named_modules())
    nodes = [node for node in _LayerTracer().trace(network).nodes if node.op == "call_module"]
    runs = Counter(node.target for node in nodes)
    for node in nodes:
        norm = modules[str(node.target)]
        source = node.args[0]
        if not isinstance(norm, nn.BatchNorm2d) or not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        convolution = modules[str(source.target)]
        once = runs[node.target] == runs[source.target] == len(source.users) == 1
        # Other subclasses may compute their weights when they run.
        if once and isinstance(convolution, nn.Conv2d) and type(convolution) in (nn.Conv2d, Conv2dSame):
            merged = fuse_conv_bn_eval(convolution, norm)
            convolution.weight, convolution.bias = merged.weight, merged.bias
            parent, _, child = str(node.target).rpartition(".")
            setattr(network.get_submodule(parent), child, getattr(norm, "act", nn.Identity()))
