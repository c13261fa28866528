from pathlib import Path

import pytest

from results.migrations import load_record
from results.record import SCHEMA_VERSION, Record

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Path:
    """The oldest readable record of each schema version."""
    return GOLDEN


@pytest.fixture
def record() -> Record:
    return load_record(GOLDEN / f"record_v{SCHEMA_VERSION}.json")
