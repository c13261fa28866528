"""What all figures share: size, fonts, colours, and how they become files."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

FONT_SIZE = 8.0
INK = "#222222"
FAINT = "#8a8a8a"
GRID = "#e4e4e4"
_MARKERS = "oDs^vP*X<>pdh8"
_LARGER = {"*": 1.6, "d": 1.2}
"""Of the size, what makes these as heavy as the others."""
_LEGEND_LINE = 0.17
_RC: Mapping[Any, object] = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,
    "path.simplify": False,
    "svg.hashsalt": "reports",
}


@contextmanager
def context() -> Iterator[None]:
    """Settings under which figures are drawn and written, whatever the user's own are; those return afterwards."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def palette(count: int) -> list[tuple[float, float, float]]:
    """Colours that people with any colour vision can tell apart; at most ten."""
    colours: list[tuple[float, float, float]] = list(sns.color_palette("colorblind", count))
    return colours


def symbols(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each of some things that a plot tells apart: 14 markers, 126 pairs, then they repeat."""
    # Without the gray, which looks like a part of the frame.
    colours = [colour for colour in palette(10) if len({round(part, 2) for part in colour}) > 1]
    return {
        label: {"color": colours[index % len(colours)], "marker": _MARKERS[index % len(_MARKERS)]}
        for index, label in enumerate(labels)
    }


def marked(
    symbol: Mapping[str, Any], size: float = 5.5, *, suspect: bool = False, hollow: bool = False
) -> dict[str, Any]:
    """How a point is drawn: filled, half filled if it is suspect, or hollow if others have published it.

    Args:
        symbol: Colour and marker, of :func:`symbols`.
        size: In points.
        suspect: Whether its verdict is SUSPECT.
        hollow: Whether others have published it.

    Returns:
        Arguments of matplotlib's ``plot``.
    """
    shape = {**symbol, "ms": size * _LARGER.get(symbol["marker"], 1)}
    if not (suspect or hollow):
        return {**shape, "mew": 0}
    edge = {**shape, "mec": shape["color"], "mew": 0.7}
    return {**edge, "mfc": "none"} if hollow else {**edge, "fillstyle": "left", "markerfacecoloralt": "white"}


def add_legend(figure: Figure, handles: Sequence[Any], below: float) -> float:
    """Write a legend below what the figure shows, in as many columns as fit.

    Args:
        figure: With its axes.
        handles: What it names.
        below: Inches that are taken already below the figure.

    Returns:
        Inches below the figure that are taken now.
    """
    width, height = figure.get_size_inches()
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(int(width * 14.5 / (longest + 6)), 5))
    letters = int(width * 14.5 / columns) - 6
    figure.legend(
        handles=list(handles), labels=[wrap(plain(str(handle.get_label())), letters, 1) for handle in handles],
        loc="upper left", bbox_to_anchor=(0, -below / height), borderaxespad=0, borderpad=0,
        ncols=columns, frameon=False, handletextpad=0.2, columnspacing=1.2,
    )  # fmt: skip
    return below + _LEGEND_LINE * -(-len(handles) // columns)


def entry(label: str, **style: Any) -> Line2D:
    """A marker of a legend."""
    return Line2D([], [], **{"linestyle": "", "ms": 5, "mew": 0, **style}, label=label)


def scale_logarithmically(axis: Axis, values: Sequence[float]) -> None:
    """Make an axis logarithmic with round numbers, and with some room beyond the values.

    Args:
        axis: Horizontal or vertical.
        values: All above 0.
    """
    low, high = min(values), max(values)
    margin = max(1.15, (high / low) ** 0.06)
    name = "x" if axis is axis.axes.xaxis else "y"
    axis.axes.set(**{f"{name}scale": "log", f"{name}lim": (low / margin, high * margin)})
    steps: tuple[float, ...] = (1, 2, 5) if math.log10(high / low) < 2 else (1, 3)
    if math.log10(high / low) > 3:
        steps = (1,)
    axis.set_major_locator(LogLocator(subs=steps if high / low > 3 else (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e6 else f"{value / 1e6:g}M"))
    axis.set_minor_formatter(NullFormatter())


def plain(text: str) -> str:
    """Make any text, on one line, print as it is: no formulas, and a mark for letters that the font lacks."""
    line = " ".join(text.split())
    known = _letters()
    return "".join(letter if ord(letter) in known else "\N{REPLACEMENT CHARACTER}" for letter in line).replace(
        "$", r"\$"
    )


@cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())


def wrap(text: str, width: int, lines: int = 2) -> str:
    """Break text into at most ``lines`` lines of ``width`` letters, an ellipsis for the rest."""
    broken = textwrap.wrap(text, width)
    if len(broken) > lines:
        broken = [*broken[: lines - 1], broken[lines - 1][: width - 1] + "…"]
    return "\n".join(broken)


def add_words(figure: Figure, title: str, notes: Sequence[str], above: float = 0.0, below: float = 0.0) -> None:
    """Write the title above and the notes below what the figure shows, both part of the saved picture.

    Their room lies outside of the figure: files are cut to what is drawn.

    Args:
        figure: With its axes.
        title: In bold.
        notes: A line each, or more if they are long.
        above: Inches that are taken already above the figure.
        below: Likewise below it.
    """
    width, height = figure.get_size_inches()
    letters = int(width * 14.5)
    title = wrap(plain(title), int(letters * 0.8), 3)
    figure.text(0.0, 1 + (above + 0.1) / height, title, va="bottom", weight="bold", size=FONT_SIZE + 1)
    lines = [line for note in notes for line in textwrap.wrap(plain(note), letters)]
    figure.text(0.0, -(below + 0.08) / height, "\n".join(lines), va="top", color="#444444", linespacing=1.35)


def encode(figure: Figure, kind: Literal["png", "pdf"]) -> bytes:
    """Write a figure, without date or version: the same figure gives the same bytes."""
    metadata = {"Software": None} if kind == "png" else {"CreationDate": None, "Creator": None, "Producer": None}
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    with context():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata, bbox_inches="tight", pad_inches=0.1)
    return buffer.getvalue()
