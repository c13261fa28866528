"""DSR's quantised autoencoder: where its weights come from."""

import re
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor

from methods.common.photograph_training import provenance
from methods.dsr.vq_model import VqModel
from methods.errors import WeightsError
from methods.weights.archives import extract_member
from methods.weights.catalogue import embedded_file, published_file
from methods.weights.files import WeightIdentity, sha256_of
from methods.weights.sources import identify, locate
from methods.weights.states import read_state

PUBLISHED = "dsr_vq_model"
EMBEDDED = "dsr_vq_model_embedded"
MEMBER = "vq_model_pretrained_128_4096.pckl"
INSTEAD = "take the embedded autoencoder: --preset embedded, or train one with bench distill vq"

_NAMES = (
    (r"_encoder_b\._conv_1", "encoder_hi.0"),
    (r"_encoder_b\._conv_2", "encoder_hi.2"),
    (r"_encoder_b\._conv_3", "encoder_hi.4"),
    (r"_encoder_b\._residual_stack\._layers\.0", "encoder_hi.5"),
    (r"_encoder_b\._residual_stack\._layers\.1", "encoder_hi.6"),
    (r"_encoder_t\._conv_1", "encoder_lo.0"),
    (r"_encoder_t\._conv_2", "encoder_lo.2"),
    (r"_encoder_t\._residual_stack\._layers\.0", "encoder_lo.4"),
    (r"_encoder_t\._residual_stack\._layers\.1", "encoder_lo.5"),
    (r"_pre_vq_conv_bot", "to_hi"),
    (r"_pre_vq_conv_top", "to_lo"),
    (r"_vq_vae_top\._embedding\.weight", "codebook_lo.vectors"),
    (r"_vq_vae_bot\._embedding\.weight", "codebook_hi.vectors"),
    (r"upsample_t", "upsample_lo"),
    (r"_decoder_b\._conv_1", "decoder.0"),
    (r"_decoder_b\._residual_stack\._layers\.0", "decoder.1"),
    (r"_decoder_b\._residual_stack\._layers\.1", "decoder.2"),
    (r"_decoder_b\._conv_trans_1", "decoder.4"),
    (r"_decoder_b\._conv_trans_2", "decoder.6"),
    (r"_block\.1", "layers.0"),
    (r"_block\.3", "layers.2"),
)
"""Parts of names in the official file, and ours."""
_NOT_NEEDED = re.compile(r"\._ema_(w|cluster_size)$")
"""Moving averages, of which the codebooks' training made them."""


def vq_model_files(option: str) -> list[str]:
    """Names in :mod:`methods.weights.catalogue` of what :func:`load_vq_model` reads; none for random and paths."""
    return [name for kind, name in (("auto", PUBLISHED), ("embedded", EMBEDDED)) if option == kind]


def vq_model_identity(option: str, weights_dir: Path) -> WeightIdentity:
    """Identify the weights that :func:`load_vq_model` with the same arguments loads.

    Args:
        option: ``auto``, ``embedded``, ``random``, or the path of a state dict.
        weights_dir: Where downloads are kept.

    Raises:
        WeightsError: The file is missing.
    """
    tag = (lambda _: "official, of ImageNet") if option == "auto" else provenance
    return identify(PUBLISHED, option, _file(option, weights_dir), tag)


def load_vq_model(model: VqModel, option: str, weights_dir: Path) -> None:
    """Load the autoencoder's weights; random ones stay as they are.

    Args:
        model: The autoencoder.
        option: As in :func:`vq_model_identity`, like the other argument.
        weights_dir: See there.

    Raises:
        WeightsError: The file is missing, unreadable, or holds another network.
    """
    path = _file(option, weights_dir)
    if path is None:
        return
    state, expected = our_names(read_state(path)), model.state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise WeightsError(
            f"{path} does not hold DSR's quantised autoencoder: its tensors are "
            f"{', '.join(f'{key} {tuple(value.shape)}' for key, value in state.items())[:300]}"
        )
    model.load_state_dict(state)


def our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of the official file to ours; ours stay as they are."""
    renamed = {}
    for key, value in state.items():
        if _NOT_NEEDED.search(key):
            continue
        for theirs, ours in _NAMES:
            key = re.sub(theirs, ours, key)
        renamed[key] = value.contiguous()
    return renamed


def _file(option: str, weights_dir: Path) -> Path | None:
    return locate(option, auto=lambda: _published(weights_dir), embedded=lambda: embedded_file(EMBEDDED, weights_dir))


def _published(weights_dir: Path) -> Path:
    """The official weights as a .safetensors file, made once of the archive."""
    archive = published_file(PUBLISHED, weights_dir, INSTEAD)
    target = weights_dir / Path(MEMBER).with_suffix(".safetensors")
    with FileLock(f"{target}.lock"):
        if not target.exists():
            state = our_names(read_state(extract_member(archive, MEMBER, weights_dir)))
            partial = target.with_suffix(".part")
            save_file(state, partial, metadata={"format": "pt", "archive_sha256": sha256_of(archive)})
            partial.replace(target)
    return target
