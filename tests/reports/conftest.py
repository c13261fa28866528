from pathlib import Path

import pytest
from record_factory import typical_records, write_run


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory) -> Path:
    """A run of three methods on three collections, three seeds; without examples, so that there is little to draw."""
    return write_run(tmp_path_factory.mktemp("runs") / "plain", typical_records(), examples=False)
