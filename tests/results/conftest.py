from pathlib import Path

import pytest

from results.migrations import load_record
from results.record import Record

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Path:
    """The oldest readable record of each schema version."""
    return GOLDEN


@pytest.fixture
def record() -> Record:
    return load_record(GOLDEN / "record_v1.json")
