"""Tables as Markdown that also reads well as plain text."""

import re

from rich.cells import cell_len

from reports.content.tables import Field, Table


def escape(text: str) -> str:
    """Make any text, on one line, show as it is in Markdown; harmless characters stay as they are."""
    line = " ".join(re.sub(r"[\x00-\x1f\x7f\u2028\u2029]", " ", text).split())
    line = re.sub(r"([\\`*|\[\]$])", r"\\\1", line).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = line.replace("~~", r"\~\~")
    # Underscores inside words (au_pro) are literal in Markdown; those at a word's edge would emphasise.
    line = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)
    return re.sub(r"^([#+-]|\d+[.)])(?=\s|$)", r"\\\1", line)


def code(text: str) -> str:
    """Show a name as code, whatever it contains."""
    line = " ".join(text.split()) or " "
    fence = "`" * (max((len(run) for run in re.findall(r"`+", line)), default=0) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def preformatted(text: str) -> str:
    """Show a log as it is; an indented block, which no content can end."""
    lines = [re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", line) for line in text.expandtabs().splitlines()]
    return "\n".join("    " + line for line in lines)


def render_table(table: Table) -> str:
    """Print a table, columns aligned, and its notes below it."""
    head = [escape(column.title) for column in table.columns]
    body = [[_field(field) for field in row] for row in table.rows]
    widths = [max(cell_len(line[index]) for line in (head, *body)) for index in range(len(head))]
    numeric = [column.numeric for column in table.columns]
    rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, numeric, strict=True)]
    lines = [_line(texts, widths, numeric) for texts in (head, rule, *body)]
    notes = [f"- {escape(note.mark) + ': ' if note.mark else ''}{escape(note.text)}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


def _field(field: Field) -> str:
    text = escape(field.text)
    marks = f" ({','.join(field.marks)})" if field.marks else ""
    return (f"**{text}**" if field.best else text) + marks


def _line(texts: list[str], widths: list[int], numeric: list[bool]) -> str:
    padded = []
    for text, width, right in zip(texts, widths, numeric, strict=True):
        space = " " * max(0, width - cell_len(text))
        padded.append(space + text if right else text + space)
    return f"| {' | '.join(padded)} |"
