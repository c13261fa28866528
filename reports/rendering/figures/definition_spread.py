"""The dot plot of the definitions: a line per definition, a dot per method."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.content.other_definitions import DefinitionSpread
from reports.rendering.figures.style import FAINT, add_words, context, palette, plain, wrap

_MARKERS = "oDs^vP*X<>"
# Inches.
_LINE_HEIGHT = 0.24
_LABELS = 1.7
_PANEL = 4.2
_LEGEND_COLUMNS = 3


def draw_definition_spread(spread: DefinitionSpread) -> Figure:
    """Draw every definition's value in percent; a line down from each method's exact value shows how far it is off."""
    colours = palette(10)
    exact = spread.definitions[0].name
    height = _LINE_HEIGHT * len(spread.definitions)
    with context():
        figure = Figure(figsize=(_LABELS + _PANEL, height))
        axes = figure.add_axes((_LABELS / (_LABELS + _PANEL), 0, _PANEL / (_LABELS + _PANEL), 1))
        names = [definition.name for definition in spread.definitions]
        for index, row in enumerate(spread.rows):
            colour, marker = colours[index % 10], _MARKERS[index % len(_MARKERS)]
            reference = row.values[exact]
            if reference is not None:
                axes.axvline(100 * reference, color=colour, linewidth=0.8, alpha=0.6, zorder=1)
            for line, name in enumerate(names):
                value = row.values[name]
                if value is not None:
                    axes.plot(100 * value, line, marker, color=colour, ms=5, mew=0, alpha=0.85, zorder=3)
        axes.set_yticks(range(len(names)), [plain(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="both", color="#efefef", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        handles = [
            Line2D([], [], linestyle="", marker=_MARKERS[index % len(_MARKERS)], color=colours[index % 10], ms=5,
                   label=wrap(plain(row.variant.label), 28, 1))
            for index, row in enumerate(spread.rows)
        ]  # fmt: skip
        figure.legend(
            handles=handles, loc="upper left", bbox_to_anchor=(0, -0.3 / height), borderaxespad=0, borderpad=0,
            ncols=_LEGEND_COLUMNS, frameon=False, handletextpad=0.2, columnspacing=1.2,
        )  # fmt: skip
        below = 0.3 + 0.17 * -(-len(handles) // _LEGEND_COLUMNS)
        notes = (*spread.notes, f"Percent; the lines are at {exact}.")
        add_words(figure, spread.title, notes, below=below)
    return figure
