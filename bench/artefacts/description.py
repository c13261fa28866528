"""What an exported detector says of itself, so that whoever runs it needs nothing else."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from results.parity import Parity
from results.record import ArtefactPrecision, Scalar, Weights

Format = Literal["onnx", "openvino", "torch_export"]
METADATA_KEY = "anomaly_bench"
"""Under which the description lies in a file, as JSON."""
INPUT = "images"
OUTPUTS = ("maps", "scores")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ArtefactDescription(_Strict):
    """What an artefact is.

    Attributes:
        format: Of the file.
        method: Name in the registry.
        title: As tables print it.
        source: The method's paper.
        config: Its options.
        deviations: What distinguishes it from the paper's configuration.
        weights: Its pretrained weights.
        licences: Of these, as those say who publish them; where they are not known, that.
        precision: Of its networks.
        run_with: How a runtime has to be set up so that it computes what was compared; empty if nothing is to be done.
        input: The images that it takes.
        input_size: Their height and width.
        batch: Images per call.
        outputs: What it returns.
        scenario: What it was fitted on, ``collection/scenario``.
        seed: Of the fit.
        train_images: Normal images that it was fitted on.
        train_scale: Factor on the training length; 1 is the method's own.
        training_steps: Optimiser steps done; ``None`` for a method that does not train.
        photographs: What a pretraining penalty took its images from; ``None`` without one.
        fit_key: SHA-256 over everything that determines the fitted detector.
        model_sha256: Of the model that was exported.
        thresholds: Rule to threshold of the image score, chosen on normal images; empty where none were held out.
        parity: How it differs from the module that it was made of; ``None`` before it was compared.
        version: Of this package.
    """

    format: Format
    method: str
    title: str
    source: str
    config: dict[str, Scalar | list[Scalar]]
    deviations: list[str]
    weights: list[Weights] = Field(default_factory=list)
    licences: list[str] = Field(default_factory=list)
    precision: ArtefactPrecision
    run_with: str = ""
    input: str = (
        "images: uint8 (B, 3, H, W), RGB, 0-255; the whole image resized to H x W, bilinear with antialiasing. "
        "Normalisation is inside."
    )
    input_size: tuple[int, int]
    batch: int
    outputs: str = "maps: float32 (B, h, w) of the whole image; scores: float32 (B,). Higher is more anomalous."
    scenario: str
    seed: int
    train_images: int
    train_scale: float = 1.0
    training_steps: int | None = None
    photographs: str | None = None
    fit_key: str
    model_sha256: str
    thresholds: dict[str, float]
    parity: Parity | None = None
    version: str
