"""What a user asks of ``bench run``: flags over a configuration file over defaults."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bench.errors import UsageError, unknown_name


def _listed(value: object) -> object:
    """Split ``a,b`` at its commas; lists stay as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int) else value


def _joined(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) else value


def _assignments(value: object) -> object:
    """Take ``{"patchcore": {"backbone": "x"}}`` or ``["patchcore.backbone=x"]``; return the former."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str):
        value = [value]
    result: dict[str, dict[str, object]] = {}
    for assignment in value if isinstance(value, list | tuple) else ():
        target, equals, setting = str(assignment).partition("=")
        method, dot, field = target.strip().partition(".")
        if not (equals and dot and method and field):
            raise ValueError(f"{assignment!r} is not of the form METHOD.FIELD=VALUE")
        result.setdefault(method, {})[field] = setting.strip()
    return result


_Folder = Annotated[Path, BeforeValidator(_expanded)]


class RunOptions(BaseModel):
    """Everything that ``bench run`` takes, with its defaults; the names are those of the flags.

    Attributes:
        methods: Names in the registry.
        datasets: ``all``, ``demo``, ``COLLECTION`` or ``COLLECTION/SCENARIO``, comma separated.
        data_root: The folder that holds the collections.
        seeds: One cell each per method and scenario.
        out: The run folder; chosen when ``None``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        workers: Worker processes; chosen when ``None``.
        train_scale: Multiplies every method's training length.
        set: Method to option to value.
        preset: A named set of options, of every method; ``None`` for the paper's, except on the demo.
        penalty_images: Folder of photographs for the pretraining penalty, or ``none``; searched when ``None``.
        weights_dir: Where downloaded weights are kept.
        cache: Whether decoded images are kept on disk.
        keep_maps: Keep the anomaly maps beside each record.
        dry_run: Only say what would be done.
        retry_failed: Run the cells again that failed before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(min_length=1)
    datasets: Annotated[str, BeforeValidator(_joined)] = "all"
    data_root: _Folder = Field(default_factory=lambda: default_data_root())
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_listed)] = Field((0,), min_length=1)
    out: _Folder | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    workers: Annotated[int, Field(ge=1)] | None = None
    train_scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    set: Annotated[dict[str, dict[str, Any]], BeforeValidator(_assignments)] = Field(default_factory=dict)
    preset: str | None = None
    penalty_images: Literal["none"] | _Folder | None = None
    weights_dir: _Folder | None = None
    cache: bool = True
    keep_maps: bool = False
    dry_run: bool = False
    retry_failed: bool = False


def default_data_root() -> Path:
    """``$BENCH_DATA``, else ``data`` in the current folder."""
    return Path(os.environ.get("BENCH_DATA") or "data").expanduser()


def resolve_options(flags: Mapping[str, object], config: Path | None) -> RunOptions:
    """Combine flags with a configuration file; a flag wins, except that single ``set`` values are merged.

    Args:
        flags: Option name to value; ``None`` where the flag was not given.
        config: TOML file whose keys are the flags' names. Its paths are relative to the current folder, as those of
            flags are.

    Raises:
        UsageError: The file cannot be read, a key is unknown, or a value is not what the option takes.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    values = {**_read_config(config), **given} if config else given
    if config and "set" in given:
        values["set"] = _merged(_checked("set", _read_config(config).get("set", {})), _checked("set", given["set"]))
    if "methods" not in values:
        raise UsageError("no methods named\n  Pass --methods, comma separated; bench methods lists them.")
    try:
        return RunOptions.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise _bad_value(str(problem["loc"][0]), values.get(str(problem["loc"][0])), problem["msg"]) from error


def _checked(name: str, value: object) -> dict[str, dict[str, object]]:
    try:
        found = _assignments(value)
    except ValueError as error:
        raise _bad_value(name, value, str(error)) from error
    assert isinstance(found, dict)
    return found


def _merged(
    below: Mapping[str, Mapping[str, object]], above: Mapping[str, Mapping[str, object]]
) -> dict[str, dict[str, object]]:
    return {method: {**below.get(method, {}), **above.get(method, {})} for method in {**below, **above}}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.expanduser().open("rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"the configuration {path} is not valid TOML: {error}") from error
    names = {name.replace("_", "-") for name in RunOptions.model_fields}
    for key in table:
        if key.replace("_", "-") not in names:
            raise unknown_name(f"key in {path}:", key, sorted(names))
    return {key.replace("-", "_"): value for key, value in table.items()}


def _bad_value(name: str, value: object, reason: str) -> UsageError:
    flag = name.replace("_", "-")
    return UsageError(f"--{flag} does not take {value!r}: {reason}\n  bench run --help says what it takes.")
