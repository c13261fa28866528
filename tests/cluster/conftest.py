"""The fixtures of the runner's tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))

from shared_fixtures import data_root, environment, plugin

__all__ = ["data_root", "environment", "plugin"]
