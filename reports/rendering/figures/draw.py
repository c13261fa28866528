"""Draws whatever a document shows."""

from typing import assert_never

from matplotlib.figure import Figure

from reports.content.document import Shown
from reports.content.dot_plot import DotPlot
from reports.content.example_sheet import ExampleSheet
from reports.content.latency_plot import LatencyPlot
from reports.content.other_definitions import DefinitionSpread
from reports.content.timing_curves import CurvePlot
from reports.content.timing_stages import StagePlot
from reports.content.trade_off import TradeOffPlot
from reports.rendering.figures.curves import draw_curves
from reports.rendering.figures.definition_spread import draw_definition_spread
from reports.rendering.figures.dots import draw_dots
from reports.rendering.figures.examples import draw_examples
from reports.rendering.figures.latencies import draw_latencies
from reports.rendering.figures.stages import draw_stages
from reports.rendering.figures.trade_offs import draw_trade_offs


def draw(shown: Shown) -> Figure:
    """Draw the figure of its kind."""
    match shown:
        case DotPlot():
            return draw_dots(shown)
        case ExampleSheet():
            return draw_examples(shown)
        case DefinitionSpread():
            return draw_definition_spread(shown)
        case LatencyPlot():
            return draw_latencies(shown)
        case TradeOffPlot():
            return draw_trade_offs(shown)
        case CurvePlot():
            return draw_curves(shown)
        case StagePlot():
            return draw_stages(shown)
        case _:
            assert_never(shown)
