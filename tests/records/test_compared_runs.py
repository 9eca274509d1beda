"""Runs side by side: the front, what differs, and what makes them hard to compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfpcli.errors import InputError
from pfpcli.records.compared_runs import RunsCompared, compare
from pfpcli.records.measures import Limit, unit, values
from pfpcli.records.parts import Quality, UserMetric
from pfpcli.records.precision import Precision
from pfpcli.records.runs import AnyRun, Run
from runs import run, sparse_run, tuned_run


def made(after: float, params: int = 100, latency: float = 1.0, **changes: Any) -> Run:
    """A run of this accuracy and these costs."""
    found = run(**changes)
    quality = replace(found.quality, after=after)
    return replace(found, quality=quality, after=replace(found.after, params=params, latency_ms=latency))


def compared(*records: AnyRun) -> RunsCompared:
    return compare([(Path(f"runs/{i}"), record) for i, record in enumerate(records, 1)])


def differing(found: RunsCompared) -> dict[str, list[Any]]:
    return {each.name: each.values for each in found.differences}


def test_a_run_is_on_the_front_of_a_cost_unless_another_is_as_good_for_less() -> None:
    found = compared(made(0.9, 100, 2.0), made(0.9, 90, 3.0), made(0.8, 95, 1.0), made(0.95, 200, 2.0))
    assert [{"params", "latency"} & set(each.front) for each in found.runs] == [
        set(), {"params"}, {"latency"}, {"params", "latency"},
    ]  # fmt: skip


def test_runs_that_are_alike_beat_each_other_nowhere() -> None:
    found = compared(made(0.9), made(0.9))
    assert all("params" in each.front for each in found.runs)


def test_a_failed_run_is_on_no_front_and_keeps_no_other_from_it() -> None:
    found = compared(made(0.99, 10, status="failed"), made(0.9, 100))
    assert [bool(each.front) for each in found.runs] == [False, True]


def in_int8(of: Run, after: float, size: int, latency: float | None = None) -> Run:
    """The same run with an int8 file of this accuracy and these costs."""
    quality = replace(of.quality, after=after)
    lower = Precision("int8", "model-int8.onnx", "", size, latency, 0.0, quality)
    return replace(of, precisions=[Precision("float32", "model.onnx"), lower])


def fronts(found: RunsCompared) -> dict[str, list[str]]:
    """The front of each run, and of each file: `1` and `1 int8`."""
    runs = {run.name: run.front for run in found.runs}
    return runs | {f"{run.name} {file.name}": file.front for run in found.runs for file in run.files}


def test_a_file_of_lower_precision_is_on_the_front_of_its_size_and_latency_and_beats_runs_there() -> None:
    small, large = made(0.8, 50, 1.0), in_int8(made(0.9, 100, 2.0), 0.9, 10, 0.5)
    assert fronts(compared(small, large)) == {
        "1": ["params"],
        "2": ["params", "macs"],
        "2 int8": ["size", "latency"],
    }


def test_a_file_that_is_better_than_its_run_by_chance_keeps_no_run_from_the_front_of_the_macs() -> None:
    found = fronts(compared(made(0.8, 50, 1.0), in_int8(made(0.9, 100, 2.0), 0.91, 10**9)))
    assert {"params", "macs"} <= set(found["2"])
    assert found["2 int8"] == ["size"]  # the best quality there is, whatever its size


def test_a_file_of_a_failed_run_and_one_whose_quality_is_unknown_are_on_no_front() -> None:
    bad = in_int8(made(0.9, 100, 2.0, status="failed"), 0.9, 10)
    metric = UserMetric("dice", 41.0, 40.0)
    unknown = in_int8(made(0.9, 100, 2.0, metric=metric), 0.9, 10)
    assert fronts(compared(bad, made(0.8)))["1 int8"] == []
    assert fronts(compared(unknown, run(metric=metric)))["1 int8"] == []


def test_a_cost_that_a_run_does_not_have_has_no_front() -> None:
    found = compared(run(), sparse_run())
    assert found.costs == ["params", "nonzeros", "macs", "size", "latency"]
    assert found.common == ["params", "macs", "size"]
    assert not any({"nonzeros", "latency"} & set(each.front) for each in found.runs)
    # nothing was timed in one of them, so no conditions differ
    assert not any("latencies" in remark for remark in found.remarks)


def test_only_settings_that_differ_are_found() -> None:
    other = run(settings=run().settings | {"criterion": "l1", "seed": 3, "out": "there"})
    found = [each for each in compared(run(), other, run()).differences if each.part == "settings"]
    assert {each.name: each.values for each in found} == {"criterion": ["pfp", "l1", "pfp"], "seed": [0, 3, 0]}


def test_a_setting_that_an_older_record_lacks_is_no_difference() -> None:
    settings = {name: value for name, value in run().settings.items() if name != "task"}
    assert compared(run(settings=settings), run()).differences == []


def test_conditions_results_and_widths_that_differ_are_found() -> None:
    groups = [
        replace(group, kept=group.kept - 1) if group.name == "layer3.1.conv1" else group for group in run().groups
    ]
    other = run(groups=groups, status="worse", warnings=["a", "b"], machine=run().machine | {"torch": "2.9"})
    assert differing(compared(run(), other)) == {
        "torch": ["2.13.0", "2.9"],
        "status": ["ok", "worse"],
        "warnings": [0, 2],
        "layer3.1.conv1": [30, 29],
    }


def test_runs_of_several_networks_have_no_common_original_and_no_widths() -> None:
    other = run(model=run().model | {"sha256": "cd" * 32, "name": "other.pt"})
    found = compared(run(), other)
    assert found.original == {}
    assert found.remarks == ["the runs are of 2 networks: model.pt, other.pt"]
    assert not [each for each in found.differences if each.part == "widths"]


def test_the_original_has_the_measures_from_before() -> None:
    before = run().before
    assert compared(run(), tuned_run()).original == {
        "params": before.params,
        "macs": before.macs,
        "size": before.file_bytes,
        "latency": before.latency_ms,
        "accuracy": 0.912,
    }


def test_runs_with_several_metrics_are_compared_by_agreement_and_otherwise_not_at_all() -> None:
    other = run(quality=Quality("similarity", 1.0, 0.8, 0.7, 256, "held-out images", 0.2))
    found = compared(run(), other)
    assert found.quality == "agreement"
    assert "several metrics (accuracy, similarity)" in found.remarks[0]
    none = compared(run(), run(quality=Quality("similarity", 1.0, 0.8, None, 256, "held-out images", 0.2)))
    assert none.quality == ""
    assert "no measure of quality in common" in none.remarks[0]
    assert not any(each.front for each in none.runs)


def test_a_metric_of_the_user_comes_before_the_quality() -> None:
    found = compared(run(metric=UserMetric("dice", 41.0, 40.0)), run(metric=UserMetric("dice", 41.0, 39.0)))
    assert found.quality == "dice"
    assert [each.measures["drop"] for each in found.runs] == [1.0, 2.0]
    assert [each.own_metric for each in found.runs] == [True, True]


@pytest.mark.parametrize(
    "changes",
    [
        {"quality": replace(run().quality, n=100)},
        {"calibration": run().calibration | {"scored": 100}},
        {"settings": run().settings | {"seed": 1}},
    ],
)
def test_runs_that_other_images_judged_are_remarked(changes: dict[str, Any]) -> None:
    assert any("different images" in remark for remark in compared(run(), run(**changes)).remarks)


def test_images_of_their_own_are_the_same_for_every_seed() -> None:
    def judged(seed: int) -> Run:
        return run(settings=run().settings | {"eval": "test", "seed": seed})

    assert compared(judged(0), judged(1)).remarks == []


def test_latencies_under_other_conditions_are_remarked() -> None:
    other = run(latency=run().latency | {"threads": 4})
    assert compared(run(), other).remarks == ["the latencies were measured under different conditions"]


def test_folders_of_one_name_are_told_apart_by_their_paths() -> None:
    paths = [Path("a/run"), Path("b/run/run.json"), Path("b/other/run.json"), Path("run.json")]
    assert [each.name for each in compare([(path, run()) for path in paths]).runs] == ["a/run", "b/run", "other", "."]


def test_every_kind_of_run_has_measures() -> None:
    assert values(run())["accuracy"] == 0.898
    assert values(run())["drop"] == pytest.approx(0.014)
    assert values(sparse_run())["nonzeros"] == 44_264
    assert values(tuned_run())["drop"] < 0
    assert "keep" not in values(tuned_run())


def test_a_metric_of_the_user_is_a_number_and_a_quality_is_a_share() -> None:
    with_metric = run(metric=UserMetric("dice", 41.0, 40.0))
    assert [unit(name, with_metric) for name in ("dice", "drop", "accuracy", "params")] == [
        "number", "number", "share", "count",
    ]  # fmt: skip
    assert unit("drop", run()) == "share"


@pytest.mark.parametrize(
    ("name", "value", "is_least", "is_kept"),
    [
        ("accuracy", 0.898, True, True),
        ("accuracy", 0.899, True, False),
        ("drop", 0.0141, False, True),
        ("drop", 0.0139, False, False),
        ("latency", 1.0, False, False),
    ],
)
def test_a_limit_is_kept_up_to_its_value(name: str, value: float, is_least: bool, is_kept: bool) -> None:
    assert Limit("--flag", name, value, is_least).is_kept(run()) == is_kept


def test_a_measure_that_is_nan_keeps_no_limit() -> None:
    found = made(float("nan"))
    assert not Limit("", "accuracy", 0.0, True).is_kept(found)
    assert not Limit("", "drop", 1.0, False).is_kept(found)


def test_a_limit_of_an_unknown_measure_names_those_that_there_are() -> None:
    with pytest.raises(InputError, match="has no such measure, it has quality, drop") as caught:
        Limit("--fail-under", "acuracy", 0.9, True).of(run())
    assert caught.value.hint == "did you mean `--fail-under accuracy=…`?"
