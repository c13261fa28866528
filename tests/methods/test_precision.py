import pytest
import torch
from torch import nn

from methods.common import precision
from methods.common.precision import check_precision, cpu_features, lacks_instructions, run_network, set_precision
from methods.errors import MethodError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
HASWELL = frozenset({"sse2", "avx2", "fma", "f16c"})
SAPPHIRE_RAPIDS = HASWELL | {"avx512_bf16", "avx512_fp16", "amx_bf16"}
GRAVITON2 = frozenset({"fp", "asimd", "asimdhp"})


class Levels(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, images):
        return [self.layer(images), images]


class Fitted(nn.Module):
    networks = ("parts.0",)

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([Levels(), nn.LayerNorm(4)])
        self.register_buffer("bank", torch.zeros(2))


def dtypes(module):
    return {name: tensor.dtype for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_networks_are_cast_and_nothing_else(name, dtype):
    module = Fitted()
    set_precision(module, name)
    expected = dict.fromkeys(module.state_dict(), torch.float32)
    assert dtypes(module) == expected | {"parts.0.layer.weight": dtype, "parts.0.layer.bias": dtype}


def test_fp32_is_what_a_module_is_anyway():
    module = Levels()  # which names no networks
    set_precision(module, "fp32")
    assert set(dtypes(module).values()) == {torch.float32}


@pytest.mark.parametrize("networks", [None, ()])
def test_a_module_without_networks_is_refused(networks):
    module = Levels()
    if networks is not None:
        module.networks = networks
    with pytest.raises(MethodError, match=r"cannot run in bf16: its module does not name its networks"):
        set_precision(module, "bf16")
    assert set(dtypes(module).values()) == {torch.float32}


def test_a_network_computes_in_its_own_precision_and_returns_float32():
    images = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    network = Levels().to(torch.bfloat16)
    outputs = run_network(network, images)
    assert [output.dtype for output in outputs] == [torch.float32] * 2
    assert torch.equal(outputs[1], images.bfloat16().float())
    alone = run_network(network.layer, images)
    assert alone.dtype == torch.float32
    assert torch.equal(alone, outputs[0])


@pytest.mark.parametrize(
    ("name", "features", "lacks"),
    [
        ("fp32", HASWELL, False),
        ("bf16", HASWELL, True),
        ("fp16", HASWELL, True),
        ("bf16", SAPPHIRE_RAPIDS, False),
        ("fp16", SAPPHIRE_RAPIDS, False),
        ("bf16", HASWELL | {"avx512_bf16"}, False),
        ("fp16", HASWELL | {"avx512_bf16"}, True),
        ("bf16", GRAVITON2, True),
        ("fp16", GRAVITON2, False),
        ("bf16", frozenset(), False),  # unknown: nobody is refused on a guess
    ],
)
def test_which_cpus_only_emulate(name, features, lacks):
    assert lacks_instructions(name, features) == lacks


def test_emulation_is_refused_unless_forced(monkeypatch):
    monkeypatch.setattr(precision, "cpu_features", lambda: HASWELL)
    with pytest.raises(MethodError, match=r"bf16 is not supported by this CPU: it has none of amx_bf16, avx512_bf16"):
        check_precision("bf16", CPU, forced=False)
    check_precision("bf16", CPU, forced=True)
    check_precision("bf16", CUDA, forced=False)
    check_precision("fp32", CPU, forced=False)


def test_features_of_this_cpu():
    features = cpu_features()
    assert not features or features & {"sse2", "fp", "asimd"}
