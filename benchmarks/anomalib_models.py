"""Which models of the installed anomalib run here, and which of them without network: writes docs/methods/anomalib.md.

Every model is fitted for one step on four small images and predicts them, in a process of its own: as it is, then, if
it wants to download something, with random weights where it has an option for that, which shows that it works and
nothing else. ``HF_HUB_OFFLINE=1`` spares the attempts to reach a server.

    HF_HUB_OFFLINE=1 python -m benchmarks.anomalib_models docs/methods/anomalib.md
"""

import subprocess
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path

TIME_LIMIT = 600
RANDOM = "[pre_trained=false]"
_TRY = """
import sys, torch
from methods.common.seeding import reproducible
from methods.conformance.images import striped
from methods.detector import FitContext, ImageSet
from methods.errors import MethodError, WeightsError
from methods.registry import load_method

torch.set_num_threads(1)
method = load_method(sys.argv[1])
try:
    detector = method(method.Config(epochs=1, batch_size=2))
    images = striped(4, detector.input_size, seed=0)
    held_out = ImageSet(images, [0, 1] if method.uses_validation else [])
    with reproducible(0, torch.device("cpu")):
        detector.fit(ImageSet(images), held_out, FitContext(0, train_scale=0.5))
    maps = detector.predict(images).maps
    size = "x".join(map(str, detector.input_size))
    print("OUTCOME runs" if maps.isfinite().all() else "OUTCOME gives maps that are not finite", size, sep="|")
except WeightsError as error:
    print("OUTCOME " + str(error).splitlines()[0].partition(" and cannot")[0], "download", sep="|")
except (MethodError, Exception) as error:
    print(f"OUTCOME {type(error).__name__}: " + str(error).strip().splitlines()[0], "", sep="|")
"""


def attempt(name: str) -> tuple[str, str]:
    """Try a model; return what came of it, and the size of its images or ``download``."""
    command = [sys.executable, "-c", _TRY, name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        return f"took more than {TIME_LIMIT} s", ""
    for line in done.stdout.splitlines():
        if line.startswith("OUTCOME "):
            outcome, _, more = line.removeprefix("OUTCOME ").rpartition("|")
            return outcome, more
    return (f"died with exit code {done.returncode}", "")


def row(model: str) -> str:
    """A line of the table."""
    outcome, more = attempt(f"anomalib:{model}")
    if more != "download":
        return f"| {model} | {more or '–'} | {_cell(model, outcome)} | |"
    random, size = attempt(f"anomalib:{model}{RANDOM}")
    if size == "download":
        random, size = "the same", ""
    elif "unknown option" in random:
        random = "no option for it"
    return f"| {model} | {size or '–'} | {_cell(model, outcome)} | {_cell(model, random)} |"


def _cell(model: str, text: str) -> str:
    for own in (f"anomalib {model} ", f"anomalib's {model} "):
        text = text.removeprefix(own)
    return textwrap.shorten(text, 200, placeholder=" …").replace("|", "/").replace("<", "&lt;")


def main() -> None:
    """Try every model and write the page."""
    from methods.from_anomalib.models import anomalib_models

    page = Path(sys.argv[1])
    lines = []
    for model in anomalib_models():
        lines.append(row(model))
        print(lines[-1], flush=True)
    text = HEAD.format(version=version("anomalib"), models=len(lines))
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text + "\n".join(lines) + "\n")


HEAD = """# Models of anomalib

    bench run --methods "anomalib:Padim[backbone=resnet18],anomalib:Patchcore" --datasets mvtec_ad

fits any image model of the installed anomalib (2.7) under the protocol of this project: on the same training images,
with its own engine and its own options, which stand in brackets; with the last state; without its post-processing,
which normalises scores by a validation set that is by default the test set, and clips them; and without a centre crop.
Options that all of them have are set as those of other methods are:

    bench run --methods "anomalib:Stfpm" --datasets mvtec_ad --set "anomalib:Stfpm.epochs=200"

anomalib leaves the length of a training to its user; `epochs` is 100 unless set, which is our choice and no paper's.
Which pretrained weights a model takes is anomalib's business, and not always the paper's: rows say so.

The table is written by `python -m benchmarks.anomalib_models docs/methods/anomalib.md`: each of the {models} image
models of anomalib {version} was fitted for one step on four small images and predicted them, on a CPU and without
network. A model that wants to download something can be fitted where there is network; the caches it fills there can
be brought along.

| Model | Image size | As it is | With random weights |
|---|---|---|---|
"""


if __name__ == "__main__":
    main()
