import subprocess
import sys


def test_importing_metrics_loads_nothing_heavy():
    code = "import sys, metrics; print(sorted({'numba', 'scipy', 'torch', 'matplotlib', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
