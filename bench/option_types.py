"""What options of commands are made of: how a value is parsed and bounded, and how it looks on the command line.

Importing this module loads nothing heavy.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from methods.config import split_outside_brackets

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema


@dataclass(frozen=True)
class Parsed:
    """Metadata of an option: what is done to its value before it is validated."""

    parse: Callable[[object], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.parse, handler(source))


class Limits:
    """Metadata of an option: bounds of its value, by the names of pydantic's ``Field``; stands before ``Parsed``."""

    def __init__(self, **bounds: object) -> None:
        self._bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic import Field

        bounds: Any = self._bounds
        return handler.generate_schema(Annotated[source, Field(**bounds)])


@dataclass(frozen=True)
class Flag:
    """Metadata of an option: how it looks on the command line, where its type and its docstring do not say.

    Attributes:
        default: What help says of its default, where that is a rule rather than a value.
        argument: Its name in capital letters, if it is no flag but an argument.
        negatable: Of a switch: whether ``--no-…`` turns it off again.
        completions: What a comma separated list of names is completed with.
    """

    default: str = ""
    argument: str = ""
    negatable: bool = False
    completions: Literal["", "methods", "datasets", "collections", "weights"] = ""


def listed(value: object) -> object:
    """Split ``a,b[c=1,d=2]`` at the commas outside of brackets; lists stay as they are."""
    if isinstance(value, str):
        return split_outside_brackets(value)
    return [value] if isinstance(value, int) else value


def joined(value: object) -> object:
    """Join a list with commas; text stays as it is."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) else value


_ASSIGNMENT = re.compile(r"(?P<method>[^\[=]+(?:\[.*\])?)\.(?P<name>[^.=\s]+)\s*=\s*(?P<value>.*)")
"""A method's name may have dots and equal signs: ``folder/mine.py:Mine``, ``anomalib:Padim[backbone=resnet18]``."""


def assignments(value: object) -> object:
    """Take ``{"patchcore": {"backbone": "x"}}`` or ``["patchcore.backbone=x"]``; return the former."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, str):
        value = [value]
    result: dict[str, dict[str, object]] = {}
    for assignment in value if isinstance(value, list | tuple) else ():
        parts = _ASSIGNMENT.fullmatch(str(assignment).strip())
        if parts is None:
            raise ValueError(f"{assignment!r} is not of the form METHOD.FIELD=VALUE")
        result.setdefault(parts["method"], {})[parts["name"]] = parts["value"]
    return result


def default_data_root() -> Path:
    """``$BENCH_DATA``, else ``data`` in the current folder."""
    return Path(os.environ.get("BENCH_DATA") or "data").expanduser()


Folder = Annotated[Path, Parsed(_expanded)]
Listed = Annotated[tuple[str, ...], Parsed(listed)]
DataRoot = Annotated[Folder, Flag(default="$BENCH_DATA, else ./data")]
WeightsDir = Annotated[Folder, Flag(default="weights under $BENCH_CACHE, else under ~/.cache/anomaly-bench")]
Masks = Annotated[Literal["nonzero", "half"] | None, Flag(default="what the collection's owners say, else decided")]
Device = Annotated[str, Limits(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


def sizes(value: object) -> object:
    """Take ``256,1024x1224`` to pairs of height and width; lists stay as they are."""
    if not isinstance(value, str):
        return value
    sides = [part.strip().split("x") for part in value.split(",")]
    return [[*side, *side] if len(side) == 1 else side for side in sides]


Sizes = Annotated[tuple[tuple[Annotated[int, Limits(ge=8)], Annotated[int, Limits(ge=8)]], ...], Parsed(sizes)]


def quantities(value: object) -> object:
    """Take ``num_gpus=0.5,num_cpus=4`` to a mapping, also one such text per item of a list; mappings stay."""
    if isinstance(value, Mapping):
        return value
    texts = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    parts = [part.strip() for text in texts for part in str(text).split(",") if part.strip()]
    for part in parts:
        if "=" not in part:
            raise ValueError(f"{part!r} is not of the form NAME=NUMBER")
    return {name.strip(): number.strip() for name, _, number in (part.partition("=") for part in parts)}


RayNeeds = Annotated[
    dict[Literal["num_cpus", "num_gpus", "memory"], Annotated[float, Limits(ge=0, allow_inf_nan=False)]],
    Parsed(quantities),
]
