"""What cells are expected to take is what others have taken, in proportion to steps and images."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.forecast import Forecast, Observation, Task, device_name, observation_of, observe

HERE = "CPU, 2 threads"
TASK = Task("fastflow", "mvtec_ad/pill", 100, 200, 50)
SEEN = Observation(TASK, HERE, fit=200.0, rest=25.0, peak_memory=10**9, files={"record.json": 1000})


def test_a_fit_is_in_proportion_to_its_steps_and_the_rest_to_the_test_images() -> None:
    forecast = Forecast([SEEN], HERE)
    estimate = forecast.estimate(replace(TASK, training_steps=1000, train_images=999, test_images=100))
    assert estimate is not None
    assert estimate.seconds == pytest.approx(2000 + 50)
    assert (estimate.basis, estimate.observations, estimate.peak_memory) == ("this scenario", 1, 10**9)
    assert estimate.files == {"record.json": 1000}


def test_a_method_without_training_is_in_proportion_to_its_images() -> None:
    task = Task("patchcore", "mvtec_ad/pill", None, 200, 50)
    estimate = Forecast([Observation(task, HERE, fit=20.0, rest=5.0)], HERE).estimate(replace(task, train_images=400))
    assert estimate is not None
    assert estimate.seconds == pytest.approx(45)


def test_the_surest_records_are_taken() -> None:
    elsewhere = replace(SEEN, task=replace(TASK, scenario="mvtec_ad/bottle"), fit=400.0)
    gpu = replace(SEEN, device="a GPU", fit=1.0)
    for observations, basis, seconds in (
        ([SEEN, elsewhere, gpu], "this scenario", 225),
        ([elsewhere, gpu], "other scenarios", 425),
        ([gpu], "another device", 26),
    ):
        estimate = Forecast(observations, HERE).estimate(TASK)
        assert estimate is not None
        assert (estimate.basis, estimate.seconds) == (basis, pytest.approx(seconds))
    assert Forecast([], HERE).estimate(TASK) is None
    assert Forecast([replace(SEEN, task=replace(TASK, method="patchcore"))], HERE).estimate(TASK) is None


def test_several_records_give_a_range() -> None:
    estimate = Forecast([replace(SEEN, fit=fit) for fit in (100.0, 300.0, 200.0)], HERE).estimate(TASK)
    assert estimate is not None
    assert (estimate.least, estimate.seconds, estimate.greatest) == pytest.approx((125, 225, 325))


def test_a_fit_that_took_a_kept_model_says_nothing_of_fits() -> None:
    assert Forecast([replace(SEEN, fit=None)], HERE).estimate(TASK) is None


def test_records_are_observed_and_what_is_no_record_is_passed_over(tmp_path: Path) -> None:
    golden = Path(__file__).parents[1] / "results/golden/record_v5.json"
    document = json.loads(golden.read_text())
    for number, text in enumerate((golden.read_text(), "{", "[]", json.dumps({**document, "timings": None}))):
        (tmp_path / "cells" / str(number)).mkdir(parents=True)
        (tmp_path / "cells" / str(number) / "record.json").write_text(text)
    (seen,) = observe([tmp_path])
    assert seen == replace(observation_of(document) or SEEN, files={"record.json": golden.stat().st_size})
    assert seen.task.scenario == "mvtec_ad/pill"
    environment = document["environment"]
    assert seen.device == device_name(environment.get("gpu"), environment["cpu"], environment["threads"])
