"""Machine, driver, package and git identities: where a cell ran."""

import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from bench.machine.devices import Slot
from results.record import Environment

DISTRIBUTION = "anomaly-bench"
_FOR_DEVELOPERS = re.compile(r"""extra\s*==\s*["'](dev|benchmarks)["']""")
_REPOSITORY = Path(__file__).resolve().parents[2]


def environment(slot: Slot, packages: Iterable[str] = ()) -> Environment:
    """Describe where the cells of one worker run.

    Args:
        slot: Of the worker.
        packages: Installed packages that matter besides those which this one requires, such as a method's own.
    """
    commit, dirty = git_state(_REPOSITORY)
    gpu = gpu_name(slot.device) if slot.device != "cpu" else None
    return Environment(
        platform=platform.platform(),
        python=platform.python_version(),
        cpu=cpu_name(),
        threads=slot.threads,
        device=slot.device,
        gpu=gpu,
        driver=driver_version() if gpu else None,
        packages=package_versions(*packages),
        git_commit=commit,
        git_dirty=dirty,
    )


@cache
def package_versions(*more: str) -> dict[str, str]:
    """Version of this package, of what it requires, extras included, and of ``more``, as far as they are installed."""
    versions = {}
    for name in sorted({DISTRIBUTION, *_requirements(), *more}, key=str.lower):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _requirements() -> list[str]:
    """Names of the packages that this one requires, its extras for users included."""
    try:
        stated = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its source folder
        project = tomllib.loads((_REPOSITORY / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        stated = [*project["dependencies"], *extras["cpu"], *extras["gpu"], *extras["openvino"]]
    return [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in stated if not _FOR_DEVELOPERS.search(line)]


@cache
def cpu_name() -> str:
    """The processor's model."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor() or platform.machine()


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
