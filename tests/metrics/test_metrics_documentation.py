import contextlib
import io
import re
from pathlib import Path

from metrics.definitions import DEFINITIONS

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def test_the_example_runs_and_prints_what_the_page_says():
    code, printed = re.search(r"```python\n(.*?)```\s*```text\n(.*?)```", TEXT, re.DOTALL).groups()
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) <= 10
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "docs/metrics.md", "exec"), {})
    assert out.getvalue() == printed


def test_the_page_lists_every_definition():
    rows = [f"| {d.name} | {d.description} | {d.source} |" for d in DEFINITIONS]
    table = re.search(r"\| definition .*?\n\|[-|]+\n(.*?)\n\n", TEXT, re.DOTALL).group(1)
    assert table.splitlines() == rows
