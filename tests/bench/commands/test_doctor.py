"""What the doctor says of bfloat16, on CPUs with and without instructions for it."""

import pytest

from bench.commands.doctor import bf16_on_cpu
from methods.common import precision


def test_bf16_is_not_measured_where_the_cpu_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_features", lambda: frozenset({"avx2", "fma"}))
    finding = bf16_on_cpu()
    assert (finding.state, finding.found) == ("note", "not supported by this CPU")
    assert "fp32" in finding.remedy


@pytest.mark.skipif(
    precision.lacks_instructions("bf16", precision.cpu_features()), reason="this CPU would take minutes"
)
def test_bf16_is_measured_where_the_cpu_has_it() -> None:
    finding = bf16_on_cpu()
    assert "times as fast as in fp32" in finding.found
    assert finding.state in ("ok", "note")
