"""What all figures share: size, fonts, colours, and how they become files."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import matplotlib as mpl
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

FONT_SIZE = 8.0
INK = "#222222"
FAINT = "#8a8a8a"
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
