"""A digest of the source code that determines a result, so that results of changed code are measured again.

It starts from the objects at work, such as a detector's class or the function that scores, and follows the names that
their code uses. Docstrings, comments, layout, and how and in which order imports are written count for nothing.

Modules of ``methods``, of ``metrics`` and of the package that a detector comes from, or that lie beside its file,
count whole. The runner's own also hold what only asks, shows or stores: of them, the definitions count that are
reached.
"""

import ast
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TypeGuard

from methods.from_file import neighbours

_RUNNER = "bench"
_COMPUTING = frozenset({"methods", "metrics"})
_APART = frozenset(
    {
        # What they hold enters a key by its values.
        "bench.cells",
        "bench.datasets.scenario",
        "bench.protocol",
        "methods.config",
        "methods.weights.files",
        # They say, find, show or store, and compute nothing.
        "bench.datasets.cache",
        "bench.datasets.catalogue",
        "bench.errors",
        "bench.machine",
        "bench.models",
        "methods.errors",
        "methods.from_file",
        "methods.registry",
        "metrics.errors",
    }
)
"""Modules and packages that are not followed into."""

_WHOLE = ""
"""Stands for all definitions of a module."""


@dataclass(frozen=True)
class _Part:
    """Some statements of a module.

    Attributes:
        source: Their code, without docstrings and imports.
        names: Every name in it.
        imports: What is imported within: local name and dotted target.
    """

    source: str
    names: frozenset[str]
    imports: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """A module's code.

    Attributes:
        parts: Per name defined at its top level the statements that define it; those that define none under ``""``.
        imports: What is imported at its top level: local name and dotted target.
    """

    parts: dict[str, _Part]
    imports: tuple[tuple[str, str], ...]


@cache
def source_digest(*roots: object) -> str:
    """SHA-256 over the code that is reached from classes, functions and modules, 64 hexadecimal digits."""
    text = "".join(f"{place}\0{source}\0" for place, source in sorted(reached(*roots).items()))
    return hashlib.sha256(text.encode()).hexdigest()


def reached(*roots: object) -> dict[str, str]:
    """The code that classes, functions and modules lead to.

    Returns:
        ``module`` or ``module:definition`` to its source.
    """
    found: dict[str, str] = {}
    for root in roots:
        module = root.__name__ if isinstance(root, ModuleType) else root.__module__
        name = _WHOLE if isinstance(root, ModuleType) else getattr(root, "__qualname__", "").partition(".")[0]
        own = module.partition(".")[0]
        _Walk(_COMPUTING | (({own} | neighbours(own)) - {_RUNNER}), found).visit(module, name)
    # A module that one root leads to as a whole may have been visited in part from another.
    return {
        place: code
        for place, code in found.items()
        if (module := place.partition(":")[0]) == place or module not in found
    }


class _Walk:
    """Collects code, from definition to definition.

    Args:
        whole: Packages whose modules count whole.
        found: Where it is collected; what is in it is not visited again.
    """

    def __init__(self, whole: Collection[str], found: dict[str, str]) -> None:
        self._whole = whole
        self._found = found

    def visit(self, module: str, name: str) -> None:
        """Collect a definition of a module, all of them for ``""``, and what it leads to."""
        source = read_module(module)
        if module.partition(".")[0] in self._whole or name not in source.parts:
            name = _WHOLE
        place = f"{module}:{name}" if name else module
        if place in self._found or module in self._found:
            return
        parts = list(source.parts.values()) if name == _WHOLE else [source.parts[name], source.parts[_WHOLE]]
        used = frozenset().union(*(part.names for part in parts))
        imports = [pair for pair in source.imports if name == _WHOLE or pair[0] in used or pair[0] == "*"]
        imports += [pair for part in parts for pair in part.imports]
        steps = {pair: self._resolve(pair[1]) for pair in dict.fromkeys(imports)}
        bound = [
            f"{local} = {target if step is None else ':'.join(step)}"
            for (local, target), step in steps.items()
            if not _is_apart(target)
        ]
        self._found[place] = "\n".join([*sorted(bound), *(part.source for part in parts)])
        for other in sorted(used & source.parts.keys()) if name else ():
            self.visit(module, other)
        for step in steps.values():
            if step is not None:
                self.visit(*step)

    def _resolve(self, target: str, asked: tuple[str, ...] = ()) -> tuple[str, str] | None:
        """The module and definition that an import leads to; ``None`` where it is not followed.

        What a package only passes on is looked for where it comes from.
        """
        if target.partition(".")[0] not in {_RUNNER, *self._whole} or _is_apart(target) or target in asked:
            return None
        if _is_module(target):
            return target, _WHOLE
        module, _, name = target.rpartition(".")
        if not module or _is_apart(module) or not _is_module(module):
            return None
        source = read_module(module)
        passed_on = [further for local, further in source.imports if local == name]
        if name in source.parts or not passed_on:
            return module, name
        return self._resolve(passed_on[-1], (*asked, target))


@cache
def read_module(module: str) -> Source:
    """Read a module's code; each is read once in the life of the process."""
    return _parsed(*source_of(module))


@cache
def _parsed(text: str, package: str) -> Source:
    statements: dict[str, list[ast.stmt]] = {_WHOLE: []}
    imports: list[tuple[str, str]] = []
    for statement in ast.parse(text).body:
        names = list(_defined(statement))
        if not names:  # an import, or a block that may hold some
            imports += _imports(statement, package)
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            for name in names or [_WHOLE]:
                statements.setdefault(name, []).append(statement)
    return Source({name: _part(own, package) for name, own in statements.items()}, tuple(dict.fromkeys(imports)))


def source_of(module: str) -> tuple[str, str]:
    """The text of a module, empty where it has no Python file, and the package that its relative imports start from."""
    spec = find_spec(module)
    if spec is None:
        return "", ""
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    if spec.origin is None or not spec.origin.endswith(".py"):
        return "", package
    return Path(spec.origin).read_text(encoding="utf-8"), package


def forget() -> None:
    """Read every file again from now on; for programs whose code changes while they run."""
    for function in (source_digest, read_module, _is_module):
        function.cache_clear()


def _part(statements: Sequence[ast.stmt], package: str) -> _Part:
    imports = [pair for statement in statements for pair in _imports(statement, package)]
    module = _Bare().visit(ast.Module(body=list(statements), type_ignores=[]))
    names = frozenset(node.id for node in ast.walk(module) if isinstance(node, ast.Name))
    return _Part(ast.unparse(ast.fix_missing_locations(module)), names, tuple(dict.fromkeys(imports)))


class _Bare(ast.NodeTransformer):
    """Takes out docstrings, imports, and what only type checkers read."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        constant = node.value
        return None if isinstance(constant, ast.Constant) and isinstance(constant.value, str) else node

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if _is_for_type_checkers(node) else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list) and not body:
            body.append(ast.Pass())
        return node


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, str]]:
    """What a statement imports, functions within included: local name and dotted target."""
    if isinstance(tree, ast.Import):
        for name in tree.names:
            yield name.asname or name.name.partition(".")[0], name.name
    elif isinstance(tree, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - tree.level + 1] if tree.level else []
        base = ".".join([*above, *([tree.module] if tree.module else [])])
        for name in tree.names:
            # Whatever a star brings along, it is in that module.
            yield name.asname or name.name, base if name.name == "*" else f"{base}.{name.name}"
    children = tree.orelse if _is_for_type_checkers(tree) else ast.iter_child_nodes(tree)
    for child in children:
        yield from _imports(child, package)


def _defined(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top level defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))


def _is_for_type_checkers(node: ast.AST) -> TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _is_apart(target: str) -> bool:
    return any(target == apart or target.startswith(f"{apart}.") for apart in _APART)


@cache
def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ModuleNotFoundError, ValueError):
        return False
