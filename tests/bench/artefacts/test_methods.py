"""Every method of ours as ONNX."""

import pytest
import torch

from bench.artefacts import running
from bench.artefacts.writing import translate
from methods.conformance.subject import Subject
from methods.conformance.suite import BUILT_IN_SETUPS
from methods.registry import load_method

METHODS = [name for name in BUILT_IN_SETUPS if name != "efficientad_m"]
"""EfficientAD-M is S with more channels, and takes far longer."""
LOOSE = {"dsr": 1e-3}
"""DSR replaces features by the nearest of a codebook: of two that are as near, rounding chooses."""


@pytest.mark.skipif(
    any(running.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)
@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_onnx_runtime_computes_what_the_module_does(name: str) -> None:
    subject = Subject(load_method(name), BUILT_IN_SETUPS[name].options)
    module = subject.fit(subject.training_images(), subject.context()).module()
    images = subject.images
    run = translate("onnx", module, images).runner(1)
    with torch.inference_mode():
        expected_maps, expected_scores = module(images)
    maps, scores = run(images)
    allowed = LOOSE.get(name, 1e-5) * float(expected_maps.max() - expected_maps.min())
    assert float((maps - expected_maps).abs().max()) < allowed
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=allowed)
