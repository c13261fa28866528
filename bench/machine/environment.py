"""Machine, driver, package and git identities: where a cell ran."""

import platform
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.machine.devices import Slot
from results.record import Environment

PACKAGES = (
    "anomaly-bench",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "FrEIA",
    "numba",
    "numpy",
    "pillow",
    "scikit-image",
    "scipy",
    "timm",
    "torch",
    "torchvision",
)
"""Those whose version may change a result."""


def environment(slot: Slot) -> Environment:
    """Describe where the cells of one worker run."""
    commit, dirty = git_state(Path(__file__).resolve().parents[2])
    gpu = gpu_name(slot.device) if slot.device != "cpu" else None
    return Environment(
        platform=platform.platform(),
        python=platform.python_version(),
        cpu=cpu_name(),
        threads=slot.threads,
        device=slot.device,
        gpu=gpu,
        driver=driver_version() if gpu else None,
        packages=package_versions(),
        git_commit=commit,
        git_dirty=dirty,
    )


@cache
def package_versions() -> dict[str, str]:
    """Version of each package of ``PACKAGES`` that is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def cpu_name() -> str:
    """The processor's model."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


@cache
def cpu_features() -> frozenset[str]:
    """Instruction sets as Linux names them (``avx512_bf16``, ``amx_tile``); empty where they are not known."""
    try:
        match = re.search(r"^flags\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return frozenset(match[1].split()) if match else frozenset()


def gpu_name(device: str) -> str:
    """Name of the GPU ``cuda:N``."""
    import torch

    return torch.cuda.get_device_name(device)


@cache
def driver_version() -> str | None:
    """Version of NVIDIA's driver, ``None`` where there is none."""
    if shutil.which("nvidia-smi") is None:
        return None
    lines = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return lines.splitlines()[0] if lines else None


@cache
def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Commit of the checkout that the code runs from and whether it has changes; ``None`` outside of one."""
    if not (folder / ".git").exists():
        return None, None
    commit = _output("git", "-C", str(folder), "rev-parse", "HEAD")
    # Without the optional lock: an ended run must not leave the checkout locked.
    status = _output("git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "--untracked-files=no")
    return commit or None, None if status is None else bool(status)


def command_line() -> str:
    """The command as the user gave it."""
    import shlex

    return shlex.join(["bench", *sys.argv[1:]])


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
