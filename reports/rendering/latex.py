"""Tables and text for LaTeX: booktabs, compiles with pdflatex."""

import re
import textwrap
from itertools import groupby

from reports.content.tables import Column, Field, Table

_MANY_COLUMNS = 8
_LONG_TEXT = 30
_LONG_WORD = 16
_DEEP = 16

# Only what every pdflatex has: no symbol here needs a font beyond Computer Modern.
_MATH = {
    "\\": r"\backslash", "{": r"\{", "}": r"\}", "<": "<", ">": ">", "|": "|", "±": r"\pm", "×": r"\times",
    "†": r"\dagger", "·": r"\cdot", "→": r"\rightarrow", "≤": r"\leq", "≥": r"\geq", "σ": r"\sigma", "µ": r"\mu",
    "μ": r"\mu", "°": r"^\circ", "²": "^2", "³": "^3", "−": "-",
}  # fmt: skip
_SYMBOLS = {
    **{symbol: f"${command}$" for symbol, command in _MATH.items()},
    **{symbol: rf"\{symbol}" for symbol in "$&#%_"},
    # At the head of a line these would belong to the line break before it.
    **{symbol: f"{{{symbol}}}" for symbol in "[]*"},
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    '"': "''",
    "`": "`{}",
    "–": "--{}",
    "—": "---{}",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "’": "'",
    "\u00a0": "~",
}


def escape(text: str) -> str:
    """Make any text, on one line, print as it is; a letter that pdflatex's fonts lack prints as its code point."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", " ", text).split())
    # Two hyphens in a row would print as a dash.
    return "".join(
        "-{}" if character == after == "-" else _character(character)
        for character, after in zip(line, f"{line[1:]} ", strict=True)
    )


def breakable(text: str) -> str:
    """Like :func:`escape`, for names and logs: lines may also break after punctuation within a long word."""
    words = [re.split(r"(?<=[/\\_.,:=])", word) if len(word) > _LONG_WORD else [word] for word in text.split()]
    return " ".join(r"\allowbreak{}".join(escape(piece) for piece in word if piece) for word in words)


def log_lines(text: str) -> str:
    """Print the lines of a log, one under the other, with their indentation."""
    lines = [line.expandtabs() for line in text.splitlines()]
    shown = ["~" * min(len(line) - len(line.lstrip()), _DEEP) + breakable(line) for line in lines]
    return "\\\\\n".join(line or "~" for line in shown)


def _character(character: str) -> str:
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if character.isascii() or ("\u00c0" <= character <= "\u00ff" and character not in "ÐÞðþ×÷"):
        return character
    return rf"\texttt{{[U+{ord(character):04X}]}}"


def render_table(table: Table) -> str:
    """Print a table to be read in by any document with array, booktabs and longtable; it may run over several pages."""
    columns = "@{}" + "".join(_column(table, index) for index in range(len(table.columns))) + "@{}"
    heads = " & ".join(_head(table, index) for index in range(len(table.columns))) + r" \\"
    lines = [
        rf"\begingroup\{_size(table)}\setlength{{\tabcolsep}}{{3pt}}\setlength{{\LTpre}}{{2pt}}\setlength{{\LTpost}}{{2pt}}",
        rf"\begin{{longtable}}[l]{{{columns}}}",
        r"\toprule",
        heads,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *_body(table),
        r"\end{longtable}",
        *_notes(table),
        r"\endgroup",
    ]
    return "\n".join(lines) + "\n"


def _size(table: Table) -> str:
    return "footnotesize" if len(table.columns) < _MANY_COLUMNS else "scriptsize"


def _column(table: Table, index: int) -> str:
    if table.columns[index].numeric:
        return "r"
    longest = max((len(row[index].text) for row in table.rows), default=0)
    return "l" if longest <= _LONG_TEXT else r">{\raggedright\arraybackslash}p{32mm}"


def _body(table: Table) -> list[str]:
    """The rows; those of one scenario stay on one page and name it once."""
    grouped = table.columns[0].title == "Scenario"
    lines = []
    for index, row in enumerate(table.rows):
        texts = [_field(field, column) for field, column in zip(row, table.columns, strict=True)]
        if grouped and index and row[0] == table.rows[index - 1][0]:
            texts[0] = ""
        elif grouped and index:
            lines.append(r"\addlinespace")
        last = index + 1 == len(table.rows) or row[0] != table.rows[index + 1][0]
        lines.append(" & ".join(texts) + (r" \\*" if grouped and not last else r" \\"))
    return lines


def _notes(table: Table) -> list[str]:
    if not table.notes:
        return []
    # What marks refer to are many short phrases: one after the other, as in a paper.
    lines = [
        "\\quad\n".join(rf"\mbox{{\textsuperscript{{{escape(note.mark)}}}}}~{escape(note.text)}" for note in notes)
        if marked
        else "\\\\[1pt]\n".join(escape(note.text) for note in notes)
        for marked, notes in groupby(table.notes, key=lambda note: bool(note.mark))
    ]
    return [r"{\raggedright\noindent", "\\\\[1pt]\n".join(lines) + r"\par}"]


def _head(table: Table, index: int) -> str:
    """The title of a column; over numbers in as many lines as make it no wider than they are, and limits apart."""
    column = table.columns[index]
    if not column.numeric:
        return escape(column.title)
    title = column.title.replace("@", " @")
    width = max(map(len, [*title.split(), *(row[index].text for row in table.rows)]))
    lines = textwrap.wrap(title, width, break_long_words=False, break_on_hyphens=False)
    stacked = r"\\".join(escape(line) for line in lines)
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{stacked}\end{{tabular}}" if len(lines) > 1 else stacked


def _field(field: Field, column: Column) -> str:
    text = escape(field.text) if column.numeric else breakable(field.text)
    marks = rf"\textsuperscript{{{escape(','.join(field.marks))}}}" if field.marks else ""
    return (rf"\textbf{{{text}}}" if field.best else text) + marks
