"""``bench export``: fitted detectors for another runtime."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.commands.flags import console
from bench.errors import user_errors
from bench.options import ExportOptions

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from bench.artefacts.exporting import Exported

NOT_WRITTEN = 3
_SHOWN = 5


def export(options: ExportOptions) -> int:
    """Write kept models as ONNX, for OpenVINO or as programs of torch.export, and compare them with the modules.

    A file holds normalisation, quantiles and memory bank, and says what it is and what it takes.

    Exit code: 0 all written, 2 the command makes no sense, 3 one was not written, as decisions flip or it cannot be had
    in this format.
    """
    from bench.artefacts.exporting import chosen_cells, export_model

    terminal, code = console(), 0
    done: dict[Path, Exported] = {}
    cells = chosen_cells(options)
    for cell in cells:
        if len(cells) > 1:
            terminal.print(cell.name, style="bold", highlight=False, soft_wrap=True, markup=False)
        try:
            exported = export_model(cell, options)
        except user_errors() as error:
            if len(cells) == 1:
                raise
            _say(terminal, f"not written: {error}")
            code = NOT_WRITTEN
            continue
        done[cell] = exported
        _show(terminal, exported)
        if not exported.files:
            code = NOT_WRITTEN
    if len(cells) > 1 and done:
        terminal.print()
        terminal.print(_table(done))
    return code


def _show(terminal: "Console", exported: "Exported") -> None:
    parity = exported.description.parity
    if parity is not None:
        _say(
            terminal,
            f"{parity.images} test images: maps differ by {parity.map_error:.2g} of their range, scores by "
            f"{parity.score_error:.2g}; {len(parity.flipped)} decisions flip at {parity.threshold:.6g}",
        )
        for name in parity.flipped[:_SHOWN]:
            _say(terminal, f"  {name}")
        for name, (plain, other) in parity.metrics.items():
            _say(terminal, f"  {name}: {plain:.6f} by the module, {other:.6f} by the artefact")
    if not exported.files:
        _say(terminal, "not written: pass --allow-flips to write it all the same")
    for file in exported.files:
        _say(terminal, str(file))


def _table(done: "dict[Path, Exported]") -> "Table":
    """How exact each artefact is."""
    from rich.table import Table

    metrics = list(dict.fromkeys(name for one in done.values() for name in _metrics(one)))
    table = Table("Method", "Scenario", *("Map error", "Score error", "Flipped"), *metrics, box=None)
    for column in table.columns[2:]:
        column.justify = "right"
    for exported in done.values():
        said, parity = exported.description, exported.description.parity
        if parity is None:
            continue
        pairs = ("{:.4f} → {:.4f}".format(*parity.metrics[name]) if name in parity.metrics else "–" for name in metrics)
        errors = f"{parity.map_error:.1e}", f"{parity.score_error:.1e}", f"{len(parity.flipped)} of {parity.images}"
        table.add_row(said.title, said.scenario, *errors, *pairs)
    return table


def _metrics(exported: "Exported") -> dict[str, tuple[float, float]]:
    parity = exported.description.parity
    return {} if parity is None else parity.metrics


def _say(terminal: "Console", text: str) -> None:
    terminal.print(text, highlight=False, soft_wrap=True, markup=False)
