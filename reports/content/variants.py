"""Rows: a method in one configuration, and what its label must say."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from results.record import ArtefactPrecision, Record, Scalar, Weights


@dataclass(frozen=True)
class Variant:
    """One row of the tables: everything that its cells have in common.

    Attributes:
        identity: Equal for two cells if and only if they belong to the same row.
        method: Name in the registry.
        title: As the record has it.
        number: Counts the rows of the same title from 1; 0 if there is but one.
        source: The method's paper.
        preset: The named option set, if any.
        options: The method's options, as ``name=value``.
        deviations: What distinguishes the row from the paper's configuration.
        weights: Pretrained weights.
        protocol_hash: SHA-256 of the protocol.
        train_scale: Factor on the training length.
        precision: That the networks predict in.
        tf32: Whether a GPU may round the factors of float32 products to TF32.
    """

    identity: str
    method: str
    title: str
    number: int
    source: str
    preset: str | None
    options: tuple[str, ...]
    deviations: tuple[str, ...]
    weights: tuple[Weights, ...]
    protocol_hash: str
    train_scale: float
    precision: ArtefactPrecision
    tf32: bool

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def label(self) -> str:
        """The title, numbered if several rows share it."""
        return f"{self.title} #{self.number}" if self.number else self.title

    @property
    def notes(self) -> tuple[str, ...]:
        """What the row must show beside its label."""
        preset = (f"preset {self.preset}",) if self.preset else ()
        return (*preset, *self.deviations)


_CHOSEN = {"method", "title", "source", "preset", "config", "protocol_hash", "train_scale", "precision", "tf32"}


def variant_identity(record: Record) -> str:
    """Hash what makes two cells belong to different rows."""
    return _hash(record, _CHOSEN | {"deviations", "weights"})


def identify(records: Sequence[Record]) -> dict[str, str]:
    """Assign a row to each record: key to :func:`variant_identity`.

    A cell that failed before its weights were there does not know them: it belongs to the row of the same options.
    """
    identities = {record.key: variant_identity(record) for record in records}
    failed = [record for record in records if record.status == "failed"]
    if not failed:
        return identities
    done = {_hash(record, _CHOSEN): identities[record.key] for record in records if record.status == "ok"}
    known = set(done.values())
    for record in failed:
        if identities[record.key] not in known:
            identities[record.key] = done.get(_hash(record, _CHOSEN), identities[record.key])
    return identities


def _hash(record: Record, fields: set[str]) -> str:
    text = json.dumps(record.model_dump(mode="json", include=fields), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def label_variants(by_identity: Mapping[str, Record]) -> dict[str, Variant]:
    """Make rows, by identity, of one record each."""
    by_title: dict[str, list[str]] = {}
    for identity, record in sorted(by_identity.items(), key=lambda item: _number_order(item[1])):
        by_title.setdefault(record.title, []).append(identity)
    numbers = {
        identity: number if len(identities) > 1 else 0
        for identities in by_title.values()
        for number, identity in enumerate(identities, start=1)
    }
    return {identity: _variant(identity, numbers[identity], record) for identity, record in by_identity.items()}


def _number_order(record: Record) -> tuple[object, ...]:
    # The method's own training length and float32 first; the rest only has to be stable.
    numerics = (record.precision != "fp32", record.precision, record.tf32)
    options = (record.preset or "", json.dumps(record.config))
    return record.method, -record.train_scale, *options, *numerics, variant_identity(record)


def _option(value: Scalar | list[Scalar]) -> str:
    # As --set takes it.
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _variant(identity: str, number: int, record: Record) -> Variant:
    return Variant(
        identity=identity,
        method=record.method,
        title=record.title,
        number=number,
        source=record.source,
        preset=record.preset,
        options=tuple(f"{name}={_option(value)}" for name, value in sorted(record.config.items())),
        deviations=tuple(record.deviations),
        weights=tuple(record.weights),
        protocol_hash=record.protocol_hash,
        train_scale=record.train_scale,
        precision=record.precision,
        tf32=record.tf32,
    )
