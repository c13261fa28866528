"""Parameters and operations of every method in its paper's configuration, beside those of the EfficientAD paper.

Counted by the code that ``bench time`` counts with, on detectors with random weights, fitted for one step on a few
images: neither weights nor training change what is counted. Memory banks are left out, as they grow with the images.

    python -m benchmarks.costs
    python -m benchmarks.costs patchcore dsr
"""

import sys

import torch

from bench.timing.counting import Costs, count_costs
from methods.common.seeding import reproducible
from methods.config import make_config
from methods.conformance.images import striped
from methods.detector import FitContext, ImageSet
from methods.registry import BUILT_IN, load_method
from results.published import published_efficiencies

WEIGHTS = ("backbone_weights", "teacher", "teachers", "vq_model")
"""What options that name pretrained weights are called."""
IMAGES = 4


def costs(name: str) -> Costs:
    """Fit a method for one step and count."""
    method = load_method(name)
    defaults = {name: getattr(method.Config(), name) for name in WEIGHTS if hasattr(method.Config(), name)}
    random = {
        name: "random" if isinstance(value, str) else ("random",) * len(value) for name, value in defaults.items()
    }
    config = make_config(method, None, random)
    detector = method(config)
    images = striped(IMAGES, detector.input_size, seed=0)
    held_out = ImageSet(images, [0, 1] if method.uses_validation else [])
    with reproducible(0, torch.device("cpu")):
        detector.fit(ImageSet(images), held_out, FitContext(0, train_scale=1e-9))
    return count_costs(detector.module(), images[:1] / 255)


def main() -> None:
    """Print a row per method, as soon as it is counted."""
    published = {one.method: one for one in published_efficiencies()}
    print("| method | parameters, M | paper | GFLOP | paper |\n|---|---|---|---|---|")
    for name in sys.argv[1:] or BUILT_IN:
        counted, paper = costs(name), published.get(name)
        theirs = (f"{paper.parameters:g}", f"{paper.flops:,g}") if paper else ("", "")
        numbers = f"{counted.parameters / 1e6:.3f} | {theirs[0]} | {counted.flops / 1e9:,.3f} | {theirs[1]}"
        print(f"| {name} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()
