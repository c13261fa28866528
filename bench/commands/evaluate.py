"""``bench evaluate``: score anomaly maps that are there already."""

from bench.commands.flags import console
from bench.options import EvaluationOptions


def evaluate(options: EvaluationOptions) -> int:
    """Evaluate anomaly maps that anything else computed, or those that a run kept; needs no GPU and no model.

    Exit code: 0 all scenarios worked, 2 the command makes no sense, 3 some maps could not be evaluated.
    """
    from bench.evaluation import evaluate_maps

    return evaluate_maps(options, console())
