"""Tables are read as programs and spreadsheets save them, and refused with line and column."""

from pathlib import Path

import pytest

from bench.datasets.tables import read_table
from bench.errors import DataError


def rows(path: Path) -> list[tuple[str, float]]:
    return [(row.text("name"), row.number("value")) for row in read_table(path, ("name", "value")).rows]


@pytest.mark.parametrize(
    "content",
    [
        b"name,value\na,1.5\nb,-2e3\n",
        b"\xef\xbb\xbfname,value\r\na,1.5\r\nb,-2e3\r\n",
        "name;value\na;1,5\nb;-2e3\n".encode("utf-16"),
        b"sep=;\nname;value\na;1,5\nb;-2e3\n",
        b"name\tvalue\na\t1.5\nb\t-2e3",
        b' Name , VALUE,,\n"a", 1.5,,\n\nb , -2e3,,\n,,,\n',
        b"value,more,name\n1.5,x,a\n-2e3,,b\n",
    ],
)
def test_ways_of_writing_the_same_table(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    assert rows(path) == [("a", 1.5), ("b", -2000.0)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no column name and no column value; it is empty"),
        (b"nom,value\n", "it has no column name; its columns are nom, value"),
        (b"name,value,name\n", "it has 2 columns name"),
        (b"name,value\na,x\n", "line 2, column value: 'x' is no finite number"),
        (b"name,value\na,inf\n", "line 2, column value: 'inf' is no finite number"),
        (b"name,value\na,\n", "line 2, column value: the number is missing"),
        (b"name,value\na,1,5\n", "line 2 has 3 cells for 2 columns"),
        (b'name,value\n"a,1\n', "line 2: unexpected end of data"),
        (b"name,value\n\xe9,1\n", "line 2 is not UTF-8: save it as CSV UTF-8"),
        (b"name,value\n\0,1\n", "NUL"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        rows(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        rows(tmp_path / "none.csv")


def test_a_damaged_parquet_file_or_one_that_nothing_can_read(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot read the table"):
        rows(path)
