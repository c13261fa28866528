"""``bench doctor``: what is installed, which devices, weights and data are found, and what to do about the rest."""

import importlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from bench.commands.flags import console
from bench.errors import user_errors
from bench.option_types import DataRoot, WeightsDir, default_data_root
from methods.weights.files import default_weights_directory

_STYLE = {"ok": "green", "missing": "red", "note": "yellow"}
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")
BF16_PAYS = 1.5
"""Speed of bf16 products from which they pay: a training step in fp32 has Winograd's algorithm to shorten it."""


@dataclass(frozen=True)
class DoctorOptions:
    """Everything that ``bench doctor`` takes.

    Attributes:
        data_root: Folder of the collections.
        weights_dir: Where downloaded weights are kept.
    """

    data_root: DataRoot = field(default_factory=default_data_root)
    weights_dir: WeightsDir = field(default_factory=default_weights_directory)


@dataclass(frozen=True)
class Finding:
    """One thing examined.

    Attributes:
        state: ``ok``, ``missing``, or ``note`` for something that works without.
        what: Its name.
        found: What was seen.
        remedy: What to do; empty if nothing.
    """

    state: Literal["ok", "missing", "note"]
    what: str
    found: str
    remedy: str = ""


def doctor(options: DoctorOptions) -> int:
    """Say what is installed, which devices, weights and data are found, and what to do about what is missing."""
    from rich.table import Table
    from rich.text import Text

    terminal = console()
    findings = list(examine(options.data_root, options.weights_dir))
    table = Table()
    for head in ("", "What", "Found"):
        table.add_column(head, overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=_STYLE[finding.state])
        table.add_row(state, Text(finding.what), Text(finding.found))
    terminal.print(table)
    remedies = [finding for finding in findings if finding.remedy]
    if remedies:
        terminal.print(Text("\nWhat to do", style="bold"))
    for finding in remedies:  # below the table, whose columns would cut the URLs and paths that are to be copied
        what = Text(finding.what, style=_STYLE[finding.state])
        terminal.print(Text.assemble(what, ": ", finding.remedy), soft_wrap=True)
    return 0


def examine(data_root: Path, weights_dir: Path) -> Iterator[Finding]:
    """Examine packages, machine, weights, cache and data, in this order."""
    from bench.datasets.cache import default_cache_directory

    yield from _packages()
    yield from _machine()
    yield from _weights(weights_dir)
    yield _writable("cache", default_cache_directory(), "Set BENCH_CACHE to a folder that can be written.")
    yield from _data(data_root)


def _packages() -> Iterator[Finding]:
    from bench.machine.environment import package_versions
    from methods.common.torchvision_import import import_torchvision

    versions = package_versions()
    shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "numpy") if name in versions)
    yield Finding("ok", "Python", f"{platform.python_version()}, {shown}")
    for module, load, remedy in (
        # As the methods import it, which gets along with some that do not belong to the installed torch.
        ("torchvision", import_torchvision, "Install torchvision in the version that belongs to the installed torch."),
        ("FrEIA", partial(importlib.import_module, "FrEIA"), "Install FrEIA; FastFlow needs it."),
        ("numba", partial(importlib.import_module, "numba"), "Install numba; metrics and methods need it."),
    ):
        try:
            load()
        except Exception as error:  # a broken package may raise anything on import
            yield Finding("missing", module, f"{type(error).__name__}: {error}", remedy)
    yield _faiss()


def _faiss() -> Finding:
    from bench.machine.environment import driver_version

    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        remedy = "PatchCore searches with torch. For faiss: pip install anomaly-bench[cpu], on a GPU machine [gpu]."
        return Finding("note", "faiss", f"{type(error).__name__}: {error}", remedy)
    gpus = int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0
    if gpus:
        return Finding("ok", "faiss", f"on {gpus} GPUs")
    if driver_version() is None:
        return Finding("ok", "faiss", "on the CPU")
    remedy = "To search on the GPU: pip uninstall faiss-cpu, then pip install anomaly-bench[gpu]."
    return Finding("note", "faiss", "on the CPU", remedy)


def bf16_on_cpu() -> Finding:
    """Whether bfloat16 is worth while on this CPU, if it has instructions for it at all."""
    from methods.common.precision import cpu_features, lacks_instructions

    what = "bf16 on the CPU"
    if lacks_instructions("bf16", cpu_features()):
        return Finding("note", what, "not supported by this CPU", "Keep training_precision=fp32.")
    speed = _bf16_speed()
    found = f"matrix products {speed:.1f} times as fast as in fp32"
    if speed < BF16_PAYS:
        return Finding("note", what, found, "Keep training_precision=fp32: bf16 would be slower.")
    return Finding("ok", what, found)


def _bf16_speed() -> float:
    """Measured, for instructions alone do not tell: some CPUs run AVX-512's for bf16 at half the speed of fp32."""
    import torch

    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(1024, 1024, dtype=dtype)
        times = []
        for _ in range(5):
            begin = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - begin)
        seconds[dtype] = min(times)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _machine() -> Iterator[Finding]:
    import psutil
    import torch

    from bench.machine.devices import usable_cores
    from bench.machine.environment import cpu_name, driver_version
    from methods.common.precision import cpu_features

    features = [name for name in _FEATURES if name in cpu_features()]
    yield Finding("ok", "CPU", f"{cpu_name()}, {usable_cores()} cores, {', '.join(features) or 'no known features'}")
    yield bf16_on_cpu()
    memory = psutil.virtual_memory()
    yield Finding("ok", "memory", f"{memory.available / 2**30:.0f} of {memory.total / 2**30:.0f} GiB free")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Finding("ok", f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, driver {driver_version()}")
    elif driver_version() is not None:
        yield Finding(
            "missing",
            "GPU",
            f"driver {driver_version()}, but torch {torch.__version__} cannot use it",
            "Install a CUDA build of torch.",
        )
    else:
        yield Finding("note", "GPU", "none", "Everything runs on the CPU; use --train-scale for a quick look.")


def _weights(weights_dir: Path) -> Iterator[Finding]:
    """Look whether each method's weights are there, without downloading any."""
    from methods.config import make_config
    from methods.registry import load_method, method_names
    from methods.weights.catalogue import weight_files

    for name in method_names():
        try:
            method = load_method(name)
            if "embedded" not in method.presets:
                continue
            config = make_config(method, "embedded", {})
            tags = ", ".join(identity.tag for identity in method.weights(config, weights_dir))
            yield Finding("ok", f"{name} embedded", tags)
        except user_errors() as error:
            first, _, rest = str(error).partition("\n")
            yield Finding("missing", f"{name} embedded", first, " ".join(rest.split()))
    for name, file in weight_files().items():
        if file.download is None:
            continue
        path = weights_dir / file.download.file_name
        if path.exists():
            yield Finding("ok", name, str(path))
        else:
            url = file.download.url
            remedy = f"Downloaded on first use. Offline, bring {url} with bench weights import, or --preset embedded."
            yield Finding("note", name, f"not in {weights_dir}", remedy)


def _writable(what: str, folder: Path, remedy: str) -> Finding:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if os.access(existing, os.W_OK):
        return Finding("ok", what, str(folder))
    return Finding("missing", what, f"{folder} cannot be written", remedy)


def _data(data_root: Path) -> Iterator[Finding]:
    from bench.datasets.inventory import take_inventory

    remedy = "Point --data-root or BENCH_DATA at the folder of your collections; --datasets demo needs none."
    if not data_root.is_dir():
        yield Finding("missing", "data root", f"{data_root} does not exist", remedy)
        return
    inventory = take_inventory(data_root)
    found = inventory.collections
    yield Finding("ok" if found else "missing", "data root", str(data_root), "" if found else remedy)
    for each in found:
        yield Finding("ok", each.collection.name, each.coverage)
    for over in inventory.passed_over:
        yield Finding("note", over.path.relative_to(data_root).as_posix(), over.why)
    folder = next((name for name in ("imagenet", "photographs") if (data_root / name).is_dir()), None)
    if folder:
        yield Finding("ok", "penalty images", str(data_root / folder))
    else:
        remedy = f"For EfficientAD put ImageNet in {data_root}/imagenet, or photographs in {data_root}/photographs."
        yield Finding("note", "penalty images", "none", remedy)
