import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from methods import registry
from methods.config import choose_preset, make_config
from methods.detector import Detector
from methods.errors import MethodError
from methods.registry import BUILT_IN, load_method, method_names


@dataclass(frozen=True)
class Options:
    backbone: str = "wide_resnet101_2"
    fraction: Annotated[float, Field(gt=0, le=1)] = 0.01
    padding: bool = False
    size: tuple[int, int] = (224, 224)
    limit: int | None = None
    precision: Literal["fp32", "bf16"] = "fp32"


class Plugin(Detector):
    title = "Plugin"
    Config = Options
    presets: ClassVar = {"embedded": {"backbone": "efficientnet_lite0"}}


not_a_detector = Options


@pytest.fixture
def offered(monkeypatch):
    def offer(*points):
        group = registry.ENTRY_POINT_GROUP
        found = [EntryPoint(name, value, group) for name, value in points]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)

    return offer


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_method_is_a_detector(name):
    method = load_method(name)
    assert issubclass(method, Detector)
    assert method.title
    assert method.source


def test_names_need_no_torch():
    code = "import sys, methods.registry as r; r.method_names(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_unknown_method_gets_did_you_mean():
    with pytest.raises(MethodError, match=r"unknown method 'patchcor'; did you mean 'patchcore'\?\n.*efficientad_s"):
        load_method("patchcor")


def test_installed_package_offers_a_method(offered):
    offered(("plugin", f"{__name__}:Plugin"), ("plugin", f"{__name__}:Plugin"))
    assert method_names() == [*BUILT_IN, "plugin"]
    assert load_method("plugin") is Plugin


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([("patchcore", "other:PatchCore")], "'patchcore' exists twice: methods.patchcore:PatchCore and other"),
        ([("plugin", "one:A"), ("plugin", "two:B")], "'plugin' exists twice: one:A and two:B"),
        ([("plugin", "no_such_module:A")], "cannot be loaded from no_such_module:A: No module"),
        ([("plugin", f"{__name__}:Missing")], "has no attribute 'Missing'"),
        ([("plugin", f"{__name__}:not_a_detector")], "not a subclass"),
    ],
)
def test_bad_offers_are_refused(offered, points, message):
    offered(*points)
    with pytest.raises(MethodError, match=message):
        load_method("plugin")


def test_config_is_defaults_then_preset_then_overrides():
    assert make_config(Plugin, None, {}) == Options()
    assert make_config(Plugin, "embedded", {"padding": "true"}) == Options("efficientnet_lite0", padding=True)
    assert make_config(Plugin, "embedded", {"backbone": "resnet18"}) == Options("resnet18")


def test_strings_are_converted():
    overrides = {"fraction": "0.1", "size": "[320, 256]", "limit": "7", "precision": "bf16"}
    assert make_config(Plugin, None, overrides) == Options(fraction=0.1, size=(320, 256), limit=7, precision="bf16")
    assert make_config(Plugin, None, {"limit": "null"}).limit is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"backbon": "x"}, r"unknown option of Plugin 'backbon'; did you mean 'backbone'\?\n  Allowed: backbone, frac"),
        ({"fraction": "2"}, "does not take fraction='2': Input should be less than or equal to 1"),
        ({"padding": "perhaps"}, "padding='perhaps': .*boolean"),
        ({"precision": "fp16"}, "'fp32' or 'bf16'"),
        ({"limit": "many"}, "limit='many': .*integer"),
    ],
)
def test_bad_values_are_refused(overrides, message):
    with pytest.raises(MethodError, match=message):
        make_config(Plugin, None, overrides)


def test_unknown_preset_is_refused():
    with pytest.raises(MethodError, match="unknown preset of Plugin 'embeded'; did you mean 'embedded'"):
        make_config(Plugin, "embeded", {})


def test_a_method_takes_the_first_preset_that_it_has():
    assert choose_preset(Plugin, ["demo", "embedded", "paper"]) == "embedded"
    assert choose_preset(Plugin, ["demo", "paper", "embedded"]) is None
    with pytest.raises(MethodError, match="unknown preset of Plugin 'demo,embeded'; did you mean 'embedded'"):
        choose_preset(Plugin, ["demo", "embeded"])
