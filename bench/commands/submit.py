"""``bench submit``: what the owners of MVTec AD 2 evaluate."""

from bench.commands.flags import console
from bench.options import SubmissionOptions


def submit(options: SubmissionOptions) -> int:
    """Write the official submission of MVTec AD 2 from a run that has kept its models.

    The private test images are predicted; each map is a TIFF of the size of its image, float16. Nothing is uploaded.

    Exit code: 0 whole, 2 the command makes no sense, 3 something is missing that the owners' site asks for.
    """
    from bench.submission import submit_run

    terminal = console()
    return submit_run(options, lambda text: terminal.print(text, highlight=False, soft_wrap=True, markup=False))
