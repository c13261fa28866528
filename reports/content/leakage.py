"""What choosing among the epochs on the test images would gain: the leak in numbers published elsewhere.

None of the chosen values is a result. They stand in a section and a file of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from reports.content.aggregate import Mean
from reports.content.selection import Part, Result
from reports.content.tables import Column, Field, Marks, Note, Table, count, mean_text, stamps
from reports.content.variants import Variant
from reports.content.vocabulary import metric_title, summary_metrics
from results.epoch_states import EpochState, read_epoch_states

WARNING = "Not results: what a stopping rule that looks at the test images would have gained."
_ALL = "mean"


@dataclass(frozen=True)
class _Choice:
    """The last state of a cell's training, and the one that looks best on the test images.

    Attributes:
        result: The cell.
        last: State that the protocol evaluates.
        best: State with the best detection, of equals the earliest.
    """

    result: Result
    last: EpochState
    best: EpochState

    def values(self, metric: str) -> tuple[float, float] | None:
        """A metric of the last state and of the best one; ``None`` where it is undefined."""
        last, best = self.last.metrics.get(metric), self.best.metrics.get(metric)
        return None if last is None or best is None else (last, best)


def leakage_table(part: Part) -> Table | None:
    """Last state, best state and premium, per method and scenario; ``None`` if no cell's epochs were looked at.

    Raises:
        results.errors.ResultError: A file is damaged.
    """
    cells = [(result, read_epoch_states(result.directory)) for result in part.results if result.ok and result.directory]
    metrics = summary_metrics({name for _, states in cells for state in states for name in state.metrics})
    detection = metrics[0]
    choices = [choice for result, states in cells if (choice := _choose(result, states, detection))]
    if not choices:
        return None
    marks, lines = Marks(), []
    for variant in sorted({choice.result.variant for choice in choices}, key=_order):
        own = [choice for choice in choices if choice.result.variant == variant]
        scenarios = sorted({choice.result.record.scenario for choice in own})
        label = Field(variant.label, tuple(marks.of(note) for note in variant.notes))
        for scenario in scenarios:
            of_scenario = [choice for choice in own if choice.result.record.scenario == scenario]
            lines.append((label, Field(scenario), *_fields(of_scenario, metrics)))
        if len(scenarios) > 1:
            lines.append((label, Field(_ALL), *_fields(own, metrics)))
    titles = [metric_title(metric) for metric in metrics]
    heads = [f"{title} {kind}" for title in titles for kind in ("last", "best", "premium")]
    columns = (*map(Column, ("Method", "Scenario")), *(Column(head, numeric=True) for head in ("Epochs", *heads)))
    rule = (
        f"Percent. Last: the state that every other table shows. Best: the state, of all at the end of an epoch, with "
        f"the highest {titles[0]} on the test images, the earliest of equals; Epochs: how many it had seen, of all."
    )
    notes = [Note("", text) for text in (WARNING, *stamps([choice.result for choice in choices]), rule)]
    return Table("Last state and best on test", columns, tuple(lines), (*notes, *marks.notes()))


def _order(variant: Variant) -> tuple[str, str, int]:
    return variant.title.casefold(), variant.method, variant.number


def _choose(result: Result, states: Sequence[EpochState], detection: str) -> _Choice | None:
    ranked = [(value, state) for state in states if (value := state.metrics.get(detection)) is not None]
    if not ranked:
        return None
    return _Choice(result, states[-1], max(ranked, key=lambda pair: pair[0])[1])


def _fields(choices: Sequence[_Choice], metrics: Sequence[str]) -> list[Field]:
    epochs = sorted({f"{choice.best.epoch:g} of {choice.last.epoch:g}" for choice in choices})
    fields = [Field(epochs[0] if len(epochs) == 1 else count(len(choices), "cell"))]
    for metric in metrics:
        pairs = [pair for choice in choices if (pair := choice.values(metric)) is not None]
        for values in ([last for last, _ in pairs], [best for _, best in pairs], [best - last for last, best in pairs]):
            fields.append(Field(_mean_text(values)))
    return fields


def _mean_text(values: Sequence[float]) -> str:
    """The mean over cells in percent, with its standard deviation if there are several."""
    deviation = stdev(values) if len(values) > 1 else None
    return mean_text(Mean(fmean(values) if values else None, deviation, frozenset())).replace("-", "−")
