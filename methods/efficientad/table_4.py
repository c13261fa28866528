"""Steps from GCAD to EfficientAD-S (Batzner et al., WACV 2024, Table 4) that EfficientAD's own networks can take."""

from collections.abc import Mapping

_STEPS: Mapping[str, Mapping[str, object]] = {
    "pdn_architecture": {
        "p_hard": 0.0,
        "pretraining_penalty": False,
        "map_normalisation": "mean_std",
        "augmentation": "both",
        "dropout": 0.0,
        "shared_student": False,
    },
    "hard_feature_loss": {"p_hard": 0.999},
    "pretraining_penalty": {"pretraining_penalty": True},
    "map_normalisation": {"map_normalisation": "quantiles"},
    "reduced_augmentation": {"augmentation": "autoencoder"},
    "dropout": {"dropout": 0.2},
}
"""Name of a row to what it changes in the row above; the first has everything that a later one changes."""


def _presets() -> dict[str, dict[str, object]]:
    """One preset a row, ``table4_<row>``, with all that rows above it have changed."""
    presets: dict[str, dict[str, object]] = {}
    options: dict[str, object] = {}
    for row, changes in _STEPS.items():
        options = {**options, **changes}
        presets[f"table4_{row}"] = options
    return presets


PRESETS = _presets()
"""Cumulative presets of EfficientAD-S, in the order of the table.

Rows above these have other networks. The teacher is that of the row "WRN distillation" throughout: until then the paper
has one that was pretrained as S-T's are, which is a matter of the option ``teacher``. The row "Shared student" would be
EfficientAD-S itself with that teacher. Until "Reduced augmentation" the paper augments as GCAD does, with strengths per
scenario that are not published; here the colours are changed of what both students see.
"""
