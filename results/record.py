"""The record of one cell: everything a table, a plot or a reviewer needs, and nothing that can be recomputed."""

from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION: Literal[5] = 5

Scalar = bool | int | float | str | None
Precision = Literal["fp32", "bf16", "fp16"]
ArtefactPrecision = Precision | Literal["int8"]
"""Of an exported detector."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Weights(_Strict):
    """Identity of one pretrained weights file."""

    name: str
    source: Literal["download", "file", "embedded", "random"]
    tag: str
    sha256: str | None


class ImageResult(_Strict):
    """One test image.

    Attributes:
        name: Unique within the scenario (``test/<defect>/<stem>``).
        defect: Name of its folder; ``good`` for a normal image.
        anomalous: Whether it is.
        score: Of the whole image, higher is more anomalous.
        condition: The light or view it was taken under, such as ``overexposed``; empty if the collection has none.
    """

    name: str
    defect: str
    anomalous: bool
    score: float
    condition: str = ""


class Threshold(_Strict):
    """A threshold chosen by a rule on normal images that the detector was not fitted on, and what it costs.

    Attributes:
        rule: The rule's name, as in the names of the metrics (``image_f1@mean+3sd``).
        level: What is compared with it, the scores of images or those of pixels at full resolution.
        calibrated_on: Which images it was chosen on, in words.
        images: How many they are.
        value: The threshold; what exceeds it is called anomalous.
        rate_of: What the rates are shares of. With ``images`` at the pixel level, an image counts as soon as one of its
            pixels exceeds the threshold.
        declared_false_positive_rate: The share of normal images or pixels that the rule allows to exceed it; ``None``
            for a rule that promises nothing.
        realised_false_positive_rate: The share of the normal test images, or of their pixels, that exceed it; ``None``
            without normal test images.
    """

    rule: str
    level: Literal["image", "pixel"]
    calibrated_on: str
    images: int
    value: float
    rate_of: Literal["images", "pixels"]
    declared_false_positive_rate: float | None
    realised_false_positive_rate: float | None


class Data(_Strict):
    """The images of a cell.

    Attributes:
        fingerprint: SHA-256 over the names and contents of all files of the scenario.
        train: Normal images fitted on, the validation images excluded; ``None`` where maps from elsewhere are
            evaluated and nobody says.
        validation: Held-out normal images; ``None`` likewise.
        test_normal: Normal test images.
        test_anomalous: Anomalous test images.
        note: What every table must say of them, such as an incomplete scenario; ``None`` if nothing.
        notes: What else is to be known of the files: what was left out, turned or found twice, one phrase each.
        bit_depth: Bits per channel that the images really use, where they are stored with more than 8; ``None`` else.
    """

    fingerprint: str
    train: int | None
    validation: int | None
    test_normal: int
    test_anomalous: int
    note: str | None = None
    notes: list[str] = Field(default_factory=list)
    bit_depth: int | None = None


class Collection(_Strict):
    """The collection that a scenario belongs to.

    Attributes:
        name: Short name, for example ``mvtec_ad``.
        title: As tables print it, for example ``MVTec AD``.
        scenarios: How many scenarios a complete copy has; ``None`` where nobody defines that.
        note: What every table, plot and page must say of the collection; ``None`` if nothing.
    """

    name: str
    title: str
    scenarios: int | None = None
    note: str | None = None


class Timings(_Strict):
    """Wall-clock seconds per stage of one cell, for planning; never a latency claim."""

    decode: float
    fit: float
    maps: float
    metrics: float


class Environment(_Strict):
    """Where a cell ran."""

    platform: str
    python: str
    cpu: str
    threads: int
    device: str
    gpu: str | None = None
    driver: str | None = None
    packages: dict[str, str]
    git_commit: str | None = None
    git_dirty: bool | None = None


class Failure(_Strict):
    """Why a cell has no metrics.

    Attributes:
        kind: ``error`` the method or the data raised, ``killed`` the worker died by a signal, ``memory`` it ran out of
            memory, ``bug`` an exception that is nobody's fault but ours.
        reason: One line.
        log_tail: The last lines the worker printed or the traceback.
    """

    kind: Literal["error", "killed", "memory", "bug"]
    reason: str
    log_tail: str = ""


class MapsSource(_Strict):
    """The anomaly maps of a record whose cell did not compute them itself (``bench evaluate``).

    Attributes:
        sha256: Over the names and contents of the map files.
        record: Key of the record that the maps were kept with; ``None`` if they were made by something else.
    """

    sha256: str
    record: str | None = None


class Record(_Strict):
    """The outcome of one cell: method, scenario, seed.

    Attributes:
        key: SHA-256 over everything that determines the result, hexadecimal.
        fit_key: SHA-256 over what of it determines the fitted detector: neither test images nor metrics; ``None``
            where that is not known, as of maps from elsewhere.
        status: ``failed`` if and only if ``failure`` says why.
        method: Name in the registry.
        title: The method as tables print it.
        source: The method's paper: authors, venue, year.
        scenario: Name within the collection.
        config: The method's options, all of them.
        preset: The named option set the user chose, if any.
        deviations: What distinguishes the row from the paper's configuration, one phrase each.
        precision: That the networks predict in; ``int8`` only of an exported detector.
        tf32: Whether a GPU may round the factors of float32 products to 10 bits (TensorFloat-32).
        implementation: Which of several equivalent paths were taken, such as ``{"training step": "fast"}``.
        protocol: The protocol's rules.
        protocol_hash: Their SHA-256.
        photographs: What a pretraining penalty took its images from; ``None`` without one.
        train_scale: Factor on the training length; 1 is the method's own.
        training_steps: Optimiser steps done; ``None`` for a method that does not train.
        losses: Training loss, thinned to at most 200 points, (step, loss).
        metrics: By the names of the vocabulary (``au_pro@0.3``); saturated halves are prefixed ``structural/`` and
            ``logical/``. ``None`` is undefined and has its reason in ``undefined``.
        undefined: Metric name to the reason why it has no value.
        images: Per-image scores; empty for a failed cell.
        thresholds: Those that rules have chosen on normal images; empty where no such images were at hand.
        notes: What the evaluation had to correct in the ground truth, one phrase per image or defect.
        maps: Where the anomaly maps came from; ``None`` if from this cell.
        model: SHA-256 of the fitted detector's ``model.safetensors``; ``None`` if it was not kept.
        peak_memory: Most bytes of main memory that the process of the cell has held, what it had kept of earlier cells
            included; ``None`` where nobody counted.
        interrupted: Why earlier attempts at the cell have left no record, one line each, such as a node that was lost.
        command: The command line that made it.
    """

    schema_version: Literal[5] = SCHEMA_VERSION
    key: str
    fit_key: str | None = None
    status: Literal["ok", "failed"]
    method: str
    title: str
    source: str
    collection: Collection
    scenario: str
    seed: int
    config: dict[str, Scalar | list[Scalar]]
    preset: str | None = None
    deviations: list[str] = Field(default_factory=list)
    precision: ArtefactPrecision = "fp32"
    tf32: bool = False
    implementation: dict[str, str] = Field(default_factory=dict)
    weights: list[Weights] = Field(default_factory=list)
    photographs: str | None = None
    protocol: dict[str, Scalar | list[Scalar]]
    protocol_hash: str
    train_scale: float = 1.0
    training_steps: int | None = None
    losses: list[tuple[int, float]] = Field(default_factory=list)
    data: Data | None = None
    metrics: dict[str, float | None] = Field(default_factory=dict)
    undefined: dict[str, str] = Field(default_factory=dict)
    images: list[ImageResult] = Field(default_factory=list)
    thresholds: list[Threshold] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)
    maps: MapsSource | None = None
    model: str | None = None
    timings: Timings | None = None
    peak_memory: int | None = None
    failure: Failure | None = None
    interrupted: list[str] = Field(default_factory=list)
    environment: Environment
    command: str
    created: datetime

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.status == "failed") != (self.failure is not None):
            raise ValueError("a record has a failure if and only if its status is 'failed'")
        silent = [name for name, value in self.metrics.items() if value is None and name not in self.undefined]
        if silent:
            raise ValueError(f"metrics without value need a reason in 'undefined': {', '.join(silent)}")
        return self
