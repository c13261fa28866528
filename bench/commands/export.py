"""``bench export``: a fitted detector for another runtime."""

from bench.commands.flags import console
from bench.options import ExportOptions

FLIPS = 3
_SHOWN = 5


def export(options: ExportOptions) -> int:
    """Write a kept model as ONNX, for OpenVINO or as a program of torch.export, and compare it with the module.

    The file holds normalisation, quantiles and memory bank, and says what it is and what it takes.

    Exit code: 0 written, 2 the command makes no sense, 3 not written, as decisions flip.
    """
    from bench.artefacts.exporting import export_model

    terminal = console()

    def say(text: str) -> None:
        terminal.print(text, highlight=False, soft_wrap=True, markup=False)

    done = export_model(options)
    parity = done.description.parity
    if parity is not None:
        say(
            f"{parity.images} test images: maps differ by {parity.map_error:.2g} of their range, scores by "
            f"{parity.score_error:.2g}; {len(parity.flipped)} decisions flip at {parity.threshold:.6g}"
        )
        for name in parity.flipped[:_SHOWN]:
            say(f"  {name}")
        for name, (plain, other) in parity.metrics.items():
            say(f"  {name}: {plain:.6f} by the module, {other:.6f} by the artefact")
    if not done.files:
        say("not written: pass --allow-flips to write it all the same")
        return FLIPS
    for file in done.files:
        say(str(file))
    return 0
