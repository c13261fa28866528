"""Tables that users bring: CSV as programs and spreadsheets save it, and Parquet.

Read are UTF-8 with and without a byte order mark and UTF-16 with one; commas, semicolons and tabs between the cells,
whichever the first line fits; blanks around cells; column names in any case; decimal commas where no comma separates
the cells; a first line ``sep=;``; empty lines and empty cells at the end of a line. Everything else is refused, with
the line and the column.
"""

import codecs
import csv
import io
import math
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import DataError

PARQUET_SUFFIXES = (".parquet", ".pq")
_SEPARATORS = ",;\t"
_ENCODINGS = (  # the marks of UTF-32 begin like those of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        file: The table.
        line: Of the file where the row ends, counted from 1; of a Parquet file, the row, counted from 1.
        cells: Column to value: text, and in a Parquet file whatever that holds; columns in lower case.
        decimal_comma: Numbers may be written with a decimal comma.
    """

    file: Path
    line: int
    cells: Mapping[str, object]
    decimal_comma: bool = False

    def text(self, column: str) -> str:
        """A cell without blanks at its ends; empty if the cell is, or if the table has no such column."""
        value = self.cells.get(column)
        return "" if value is None or value != value else str(value).strip()

    def number(self, column: str) -> float:
        """A cell's finite number.

        Raises:
            DataError: It is none.
        """
        text = self.text(column)
        written = text.replace(",", ".") if self.decimal_comma and "." not in text else text
        if not _NUMBER.fullmatch(written) or not math.isfinite(float(written)):
            raise self.error(column, f"{text!r} is no finite number" if text else "the number is missing")
        return float(written)

    def error(self, column: str, problem: str) -> DataError:
        """What to raise about a cell: a message with file, line and column."""
        unit = "row" if _is_parquet(self.file) else "line"
        return DataError(f"cannot read the table {self.file}: {unit} {self.line}, column {column}: {problem}")


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        file: Where it is.
        columns: Their names in lower case, in NFC, without blanks at their ends.
        rows: In the file's order, without empty ones.
    """

    file: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def read_table(file: Path, required: Collection[str]) -> Table:
    """Read a table that has certain columns, and maybe others.

    Args:
        file: ``.parquet`` or ``.pq``, else taken for CSV.
        required: Names of columns, in lower case.

    Raises:
        DataError: The file cannot be read, lacks a column, or is no table; says where and what was found instead.
    """
    if _is_parquet(file):
        return _read_parquet(file, required)
    lines = _decoded(file).splitlines(keepends=True)
    separator, first = _separator(lines, required)
    rows = _records(file, lines[first:], separator, first)
    header = next(rows, (0, []))[1]
    columns = _columns(file, header, required)
    return Table(file, columns, tuple(_rows(file, columns, rows, decimal_comma=separator != ",")))


def _is_parquet(file: Path) -> bool:
    return file.suffix.lower() in PARQUET_SUFFIXES


def _decoded(file: Path) -> str:
    """The text of a file in UTF-8, or in what its byte order mark says."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise _unreadable(file, error.strerror or str(error)) from error
    encoding = next((name for mark, name in _ENCODINGS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(
            file, f"line {line} is not {encoding.removesuffix('-sig').upper()}: save it as CSV UTF-8"
        ) from error
    if "\0" in text:
        raise _unreadable(file, "it holds NUL characters, so it is no text in UTF-8: save it as CSV UTF-8")
    return text


def _separator(lines: list[str], required: Collection[str]) -> tuple[str, int]:
    """What stands between the cells, and the index of the line that names the columns."""
    if lines and (declared := re.fullmatch(r"\"?sep=([,;\t])\"?\s*", lines[0], re.IGNORECASE)):
        return declared[1], 1

    def fits(separator: str) -> tuple[int, int]:
        names = [_normal(name) for name in next(csv.reader(lines[:1], delimiter=separator, skipinitialspace=True), [])]
        return len(set(names) & set(required)), len(names)

    return max(_SEPARATORS, key=fits), 0


def _records(file: Path, lines: list[str], separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, with the line where it ends."""
    # A blank before a quoted cell is skipped, so that its quotes count; a tab that separates is no blank.
    reader = csv.reader(
        io.StringIO("".join(lines), newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield skipped + reader.line_num, cells
    except csv.Error as error:
        raise _unreadable(file, f"line {skipped + reader.line_num}: {error}") from error


def _columns(file: Path, header: list[str], required: Collection[str]) -> tuple[str, ...]:
    columns = [_normal(name) for name in header]
    while columns and not columns[-1]:
        columns.pop()
    missing = [name for name in required if name not in columns]
    if missing:
        found = f"its columns are {', '.join(name.strip() for name in header)}" if columns else "it is empty"
        raise _unreadable(file, f"it has no column {' and no column '.join(missing)}; {found}")
    repeated = next((name for name in columns if name and columns.count(name) > 1), None)
    if repeated is not None:
        raise _unreadable(file, f"it has {columns.count(repeated)} columns {repeated}")
    return tuple(columns)


def _rows(
    file: Path, columns: tuple[str, ...], records: Iterator[tuple[int, list[str]]], *, decimal_comma: bool
) -> Iterator[Row]:
    for line, cells in records:
        if any(cell.strip() for cell in cells[len(columns) :]):
            # Most often a decimal comma between commas.
            raise _unreadable(file, f"line {line} has {len(cells)} cells for {len(columns)} columns: {cells}")
        padded = [*cells, *[""] * len(columns)]
        yield Row(file, line, dict(zip(columns, padded, strict=False)), decimal_comma)


def _read_parquet(file: Path, required: Collection[str]) -> Table:
    import pandas

    try:
        frame = pandas.read_parquet(file)
    except ImportError as error:
        raise _unreadable(file, "Parquet needs the package pyarrow: pip install pyarrow, or save it as CSV") from error
    except Exception as error:  # whatever its readers make of a damaged file
        raise _unreadable(file, str(error) or type(error).__name__) from error
    columns = _columns(file, [str(name) for name in frame.columns], required)
    values: list[Mapping[str, Any]] = [
        dict(zip(columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)
    ]
    return Table(file, columns, tuple(Row(file, number, cells) for number, cells in enumerate(values, start=1)))


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().lower()


def _unreadable(file: Path, problem: str) -> DataError:
    return DataError(f"cannot read the table {file}: {problem}")
