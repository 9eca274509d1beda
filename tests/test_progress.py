"""Forecast: a run that has scored its channels says when it will end, about."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from pfpcli.jobs.steps.expected import forecast
from pfpcli.progress import Console, Forecast, Like
from pfpcli.settings import CompressSettings

EXPECTED = Forecast({"score": Like("trace", 5), "plan": Like("score", 2), "export": Like("trace", 8)})


def test_the_steps_ahead_take_as_long_as_their_ratio_says() -> None:
    assert EXPECTED.after("plan", {"trace": 0.5, "score": 10.0}) == 4.0
    assert EXPECTED.after("score", {"trace": 0.5, "score": 10.0}) == 24.0
    assert EXPECTED.after("export", {}) == 0


def test_nothing_is_said_of_a_step_that_is_not_expected_or_goes_with_one_that_was_not_measured() -> None:
    assert EXPECTED.after("score", {"trace": 0.5}) is None
    assert EXPECTED.after("sweep", {"trace": 0.5, "score": 10.0}) is None


def test_a_step_whose_result_was_cached_is_not_measured() -> None:
    console = Console()
    for name in ("trace", "score"):
        with console.step(name) as step:
            step.is_cached = name == "score"
    assert [*console.worked] == ["trace"]
    assert [*console.timings] == ["trace", "score"]


def test_what_only_refers_to_itself_is_freed_when_the_step_that_made_it_ends() -> None:
    class Network:
        """Knows itself, as the nodes of a network know each other."""

        def __init__(self) -> None:
            self.itself = self

    gc.disable()
    try:
        with Console().step("plan"):
            left = weakref.ref(Network())
            assert left() is not None
        assert left() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "settings", [{"minutes": 1.0, "recover": ("lsq", "distill")}, {"steps": 2}, {"latency": 0.5}, {"int8": True}]
)
def test_a_run_whose_work_depends_on_more_than_its_scores_has_no_forecast(settings: dict[str, object]) -> None:
    asked = CompressSettings(model=Path("model.onnx"), calib=Path("images"), **settings)  # type: ignore[arg-type]
    assert forecast(asked, "onnx") is None
