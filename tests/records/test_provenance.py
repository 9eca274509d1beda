"""Which run came from which, as far as the records say it."""

from __future__ import annotations

from pathlib import Path

from pfpcli.records.provenance import MadeFrom, made_from
from pfpcli.records.sources import Source, of_files
from runs import run, sparse_run, tuned_run

EARLY, LATE = "2026-01-01T00:00:00", "2026-01-02T00:00:00"


def test_a_fine_tuned_run_comes_from_the_run_that_it_names() -> None:
    runs = [tuned_run(run="keep0.4", created=LATE), run(created=EARLY), run(created=EARLY)]
    assert made_from(["tuned", "keep0.4", "other"], runs) == [MadeFrom("trained", "keep0.4", 2, [1])]


def test_a_run_that_is_not_compared_is_named_all_the_same() -> None:
    assert made_from(["tuned"], [tuned_run(run="keep0.4")]) == [MadeFrom("trained", "keep0.4", None, [1])]


def test_a_run_of_the_name_that_was_finished_later_is_another_one() -> None:
    runs = [tuned_run(run="keep0.4", created=EARLY), run(created=LATE)]
    assert made_from(["tuned", "keep0.4"], runs)[0].run is None


def test_of_two_runs_of_the_name_none_is_taken_for_the_source() -> None:
    runs = [tuned_run(run="keep0.4", created=LATE), run(created=EARLY), run(created=EARLY)]
    assert made_from(["tuned", "keep0.4", "keep0.4"], runs)[0].run is None


def test_the_points_of_a_sweep_stand_together_and_a_sweep_is_no_run() -> None:
    points = [run(created=LATE, sources=[Source("swept", "model-sweep")]) for _ in range(2)]
    found = made_from(["keep0.8", "model-sweep", "keep0.4"], [points[0], run(created=EARLY), points[1]])
    assert found == [MadeFrom("swept", "model-sweep", None, [1, 3])]


def test_a_run_may_come_from_a_plan_and_others_from_their_model_alone() -> None:
    runs = [run(created=EARLY), sparse_run(), run(created=LATE, sources=[Source("planned", "a")])]
    assert made_from(["a", "b", "c"], runs) == [MadeFrom("planned", "a", 1, [3])]


def test_the_source_of_a_model_and_of_a_plan_is_the_run_folder_that_it_lies_in(tmp_path: Path) -> None:
    folder = tmp_path / "keep0.4"
    folder.mkdir()
    assert of_files(object(), None) == []  # a module in memory
    assert of_files(folder / "model.onnx", folder / "plan.json") == []  # any other folder may have a private name
    (folder / "run.json").touch()
    assert of_files(tmp_path / "model.pt", folder / "plan.json") == [Source("planned", "keep0.4")]
    assert of_files(folder / "model.onnx", None) == [Source("pruned", "keep0.4")]


def test_a_run_whose_model_is_the_result_of_another_run_comes_from_it() -> None:
    runs = [run(created=EARLY), run(created=LATE, sources=[Source("pruned", "a")])]
    assert made_from(["a", "b"], runs) == [MadeFrom("pruned", "a", 1, [2])]
