import pytest
from cli_support import write_scenario
from typer.testing import CliRunner

from bench.cli import app
from bench.commands.completion import complete_collections
from bench.datasets.catalogue import known_collections
from bench.datasets.layouts import LAYOUTS
from bench.errors import UsageError


@pytest.fixture
def root(tmp_path):
    write_scenario(tmp_path / "mvtec_anomaly_detection" / "pill")
    write_scenario(tmp_path / "mvtec_anomaly_detection" / "widget")
    write_scenario(tmp_path / "own" / "part")
    return tmp_path


def listed(root, *names):
    done = CliRunner().invoke(app, ["data", "list", *names, "--data-root", str(root)], env={"COLUMNS": "120"})
    if done.exception is not None:
        raise done.exception
    return done.output


def test_every_published_collection_is_listed_with_licence_and_page(root):
    output = listed(root)
    for known in known_collections():
        assert f"{known.name}  {known.title}: " in output
        assert known.page in output
        assert known.licence in output
    assert "elpv  ELPV: not here" in output
    assert "dataset  (direct link)" in output
    assert all(layout.title in output for layout in LAYOUTS)


def test_what_is_there_is_counted_and_compared(root):
    output = listed(root)
    assert "mvtec_ad  MVTec AD: 1 of 15 scenarios, pill not as published, 1 of your own" in output
    assert "own  1 scenario, not in the catalogue" in output


def test_one_collection_is_shown_with_its_scenarios(root):
    output = listed(root, "mvtec")
    assert "Paul Bergmann, Kilian Batzner" in output
    assert "│ bottle     │   209 │          – │     20 │        63 │ –" in output
    assert "incomplete: 6 of 267 train" in output
    assert "widget" in output


def test_without_data_nothing_is_there(tmp_path):
    assert "MVTec AD: not here" in listed(tmp_path / "nowhere")


def test_an_unknown_collection(root):
    with pytest.raises(UsageError, match="did you mean 'visa'"):
        listed(root, "viza")


def test_names_are_completed():
    assert complete_collections("mvtec") == ["mvtec_ad", "mvtec_ad_2", "mvtec_loco"]
