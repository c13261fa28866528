"""A hash of the source code that determines a result, so that results of changed code are measured again."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_EVALUATION = (
    "bench.cell",
    "bench.scoring",
    "bench.datasets.images",
    "bench.datasets.layouts.mvtec",
    "bench.datasets.photographs",
    "metrics",
)
"""Besides the method: what finds and decodes images, runs a cell and computes its metrics."""
_ROOMS = ("methods", "metrics")
"""Packages whose modules count wherever they are imported."""


def code_version(module: str | None = None) -> str:
    """SHA-256 over a method's module, what it imports from its own package, and the evaluation.

    Imports inside functions count too. Comments and layout do not: editing them invalidates no result.

    Args:
        module: Dotted name of the module that defines the method; ``None`` for the evaluation alone.
    """
    found: dict[str, str] = {}
    if module is not None:
        _collect(module, {module.partition(".")[0], *_ROOMS}, found)
    for name in _EVALUATION:
        _collect(name, set(_ROOMS), found)
    text = "".join(f"{name}\0{source}\0" for name, source in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()


def _collect(module: str, packages: set[str], found: dict[str, str]) -> None:
    if module in found:
        return
    source, imported = _read(module)
    found[module] = source
    for name in imported:
        # Only these packages are asked: looking a submodule up imports the packages above it.
        if name.partition(".")[0] in packages and _is_module(name):
            _collect(name, packages, found)


@cache
def _read(module: str) -> tuple[str, tuple[str, ...]]:
    """Return a module's source without comments, and the dotted names that it imports: modules, and what is in them."""
    spec = find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return "", ()
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    return ast.unparse(tree), tuple(dict.fromkeys(_imports(tree, package)))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{name.name}" for name in node.names)


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
