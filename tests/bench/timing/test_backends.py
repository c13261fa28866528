"""Whatever runs a detector, it says the same."""

import copy

import pytest
import torch
from torch import nn

from bench.artefacts import running
from bench.errors import UsageError
from bench.timing.backends import Captured, casts_itself, make_runner
from methods.common.precision import CPU_INSTRUCTIONS, cpu_features

needs_onnx = pytest.mark.skipif(
    any(running.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="onnx, onnxscript or onnxruntime is not installed",
)
needs_openvino = pytest.mark.skipif(running.find_spec("openvino") is None, reason="openvino is not installed")


class Edges(nn.Module):
    """A convolution and its largest answer."""

    networks = ("network",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = self.network(images).square().mean(1)
        return maps, maps.flatten(1).amax(1)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Edges().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    [
        "eager",
        pytest.param("onnxruntime", marks=needs_onnx),
        pytest.param("openvino", marks=needs_openvino),
    ],
)
def test_a_backend_computes_what_the_module_does(backend: str, module: nn.Module, images: torch.Tensor) -> None:
    runner = make_runner(backend, module, images, "fp32", 1)  # type: ignore[arg-type]
    for batch in (images, images.flip(0)):
        for found, expected in zip(runner.run(batch), module(batch), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert runner.types in (None, {"float32"})


@needs_openvino
@pytest.mark.slow
@pytest.mark.skipif(
    CPU_INSTRUCTIONS["bf16"].isdisjoint(cpu_features()), reason="this CPU has no instructions for bfloat16"
)
def test_openvino_casts_by_itself(module: nn.Module, images: torch.Tensor) -> None:
    assert casts_itself("openvino")
    runner = make_runner("openvino", module, images, "bf16", 1)
    maps, _ = runner.run(images)
    expected = module(images)[0]
    assert runner.types == {"bfloat16"}
    assert 0 < float((maps - expected).abs().max()) < 0.05 * float(expected.max())


@pytest.mark.parametrize(
    ("backend", "precision", "said"),
    [
        ("tensorrt", "fp32", "Torch-TensorRT is not installed\n  Install torch-tensorrt|'tensorrt' needs a GPU"),
        ("cudagraph", "fp32", "needs a GPU"),
        ("openvino", "fp16", "openvino does not compute in fp16\\n  Allowed with it: fp32, bf16, int8"),
    ],
)
def test_what_cannot_be_is_refused(
    backend: str, precision: str, said: str, module: nn.Module, images: torch.Tensor
) -> None:
    with pytest.raises(UsageError, match=said):
        make_runner(backend, module, images, precision, 1)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(running.find_spec("torch_tensorrt") is None, reason="torch-tensorrt is not installed")
def test_tensorrt_computes_what_the_module_does(module: nn.Module, images: torch.Tensor) -> None:
    gpu = torch.device("cuda", 0)
    there, batch = copy.deepcopy(module).to(gpu), images.to(gpu)
    with torch.inference_mode():
        for found, expected in zip(
            make_runner("tensorrt", there, batch, "fp32", 1).run(batch), there(batch), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_pass_is_replayed_over_what_it_was_given(module: nn.Module, images: torch.Tensor) -> None:
    gpu = torch.device("cuda", 0)
    there = copy.deepcopy(module).to(gpu)
    with torch.inference_mode():
        captured = Captured(there, images.to(gpu))
        captured.load(images.flip(0).to(gpu))
        maps, _ = captured.replay()
        torch.testing.assert_close(maps, there(images.flip(0).to(gpu))[0])
