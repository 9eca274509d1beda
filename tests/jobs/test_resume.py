"""Runs that were interrupted, killed or have crashed go on after their last finished step, and come to the same."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pfpcli
from forked import CAN_FORK, begun, ended
from pfpcli.cache_folder import cache_folder
from pfpcli.cli import main as cli
from pfpcli.jobs import compare_criteria
from pfpcli.jobs.steps import judge, recover
from pfpcli.progress import Console
from pfpcli.recovery.trial import Trials

LINE = ["compress", "model.pt", "--calib", "imgs", "--keep", "0.5", "--task", "classify", "--criterion", "l2",
        "--threads", "1", "--robustness", "--int8", "--metric", "size.py:smallness"]  # fmt: skip
METRIC = """
import os
def smallness(onnx_file, folder):
    return -os.path.getsize(onnx_file)
"""
AGAIN = ["--metric", "size.py:smallness"]


@pytest.fixture
def typed(inside: Path) -> Iterator[Path]:
    (inside / "size.py").write_text(METRIC, encoding="utf-8")
    yield inside
    assert not list(inside.glob(".*.partial"))


@pytest.fixture(scope="module")
def whole(here: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        (here / "size.py").write_text(METRIC, encoding="utf-8")
        assert cli.run([*LINE, "--out", "whole"]) == 0
    return here / "whole"


def interrupt_at(step: str, patch: pytest.MonkeyPatch) -> None:
    """Interrupt runs at the beginning of a step."""
    begin = Console.step

    def interrupted(self: Console, name: str) -> Any:
        if name == step:
            raise KeyboardInterrupt
        return begin(self, name)

    patch.setattr(Console, "step", interrupted)


def stopped(at: str, *line: str) -> int:
    """The exit code of a line that is interrupted at the beginning of a step."""
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(at, patch)
        return cli.run(line)


def left() -> set[Path]:
    """What unfinished runs have in the cache."""
    return {*(cache_folder() / "unfinished").glob("*/*")}


def content(run: Path) -> dict[str, Any]:
    """What a run came to, without its times and the name of its folder."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    for part in ("timings", "memory", "created", "warnings", "latency"):
        del record[part]
    del record["settings"]["out"]
    for part in (record["before"], record["after"], *record["precisions"]):
        del part["latency_ms"], part["latency_iqr_ms"]
    return record


#: The files of a run that hold no times.
FILES = ("model.onnx", "model.pt2", "model.pt", "model-int8.onnx", "plan.json", "details.json")


def same(first: Path, second: Path) -> bool:
    """Whether two runs came to the same, bit for bit."""
    return content(first) == content(second) and all(
        (first / name).read_bytes() == (second / name).read_bytes() for name in FILES
    )


@pytest.mark.parametrize(
    "step",
    [
        "recover",
        pytest.param("export", marks=pytest.mark.slow),
        pytest.param("damage", marks=pytest.mark.slow),
        pytest.param("measure", marks=pytest.mark.slow),
        pytest.param("compare", marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_comes_to_the_same_as_a_whole_one(
    step: str, whole: Path, typed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = left()
    assert stopped(step, *LINE, "--out", step) == 130
    assert left() > before
    err = capsys.readouterr().err
    assert err.endswith(f"hint: go on with `pfp compress --resume {step} --metric size.py:smallness`\n")
    assert not (typed / step).exists()
    assert cli.run(["compress", "--resume", step, *AGAIN]) == 0
    assert "resume     goes on after an interrupt, " in capsys.readouterr().err
    assert same(typed / step, whole)
    assert left() == before


def test_no_finished_step_is_repeated(
    whole: Path, typed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stopped("compare", *LINE, "--out", "late") == 130

    def repeated(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Trials, "loss", repeated)
    monkeypatch.setattr(recover, "recover", repeated)
    monkeypatch.setattr(judge, "measure", repeated)
    monkeypatch.setattr(judge, "compare", repeated)
    assert cli.run(["compress", "--resume", "late", *AGAIN]) == 0
    assert "cached: smallness" in capsys.readouterr().err
    assert same(typed / "late", whole)


def test_trials_go_on_after_the_last_one(whole: Path, typed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, tried = Trials.loss, []

    def counted(self: Trials, plan: Any) -> float:
        if len(tried) == 2:
            raise KeyboardInterrupt
        tried.append(plan.kept)
        return loss(self, plan)

    with monkeypatch.context() as patch:
        patch.setattr(Trials, "loss", counted)
        assert cli.run([*LINE, "--out", "tried"]) == 130
    first = [*tried]
    tried.insert(0, ())  # counts on from three
    monkeypatch.setattr(Trials, "loss", counted)
    assert cli.run(["compress", "--resume", "tried", *AGAIN]) == 0
    assert not set(tried[3:]) & set(first)
    assert same(typed / "tried", whole)


@pytest.mark.skipif(not CAN_FORK, reason="a process is forked, to be killed")
def test_a_killed_run_goes_on(whole: Path, typed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin = Console.step

    def killed(self: Console, name: str) -> Any:
        if name == "damage":
            os.kill(os.getpid(), signal.SIGKILL)
        return begin(self, name)

    def work() -> int:
        Console.step = killed  # type: ignore[method-assign]
        return cli.run([*LINE, "--out", "killed"])

    assert ended(begun(work)) == -signal.SIGKILL
    assert not (typed / "killed").exists()
    assert cli.run(["compress", "--resume", "killed", *AGAIN]) == 0
    assert "cached: lsq on 12 images" in capsys.readouterr().err
    assert same(typed / "killed", whole)


CRITERIA = ["compare-criteria", "model.pt", "--calib", "imgs", "--criteria", "l1,l2,random", "--keeps", "0.8,0.5",
            "--task", "classify", "--threads", "1"]  # fmt: skip


def compared(folder: Path) -> dict[str, Any]:
    """A comparison of criteria, without its times and the name of its folder."""
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    del found["settings"]["out"]
    for point in found["points"]:
        del point["seconds"]
    return found


def test_a_comparison_of_criteria_goes_on_after_the_last_criterion(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*CRITERIA, "--out", "all"]) == 0
    before, judge, judged = left(), compare_criteria.compare_all, []

    def counted(*args: Any) -> Any:
        if len(judged) == 2:
            raise KeyboardInterrupt
        judged.append(args)
        return judge(*args)

    with monkeypatch.context() as patch:
        patch.setattr(compare_criteria, "compare_all", counted)
        assert cli.run([*CRITERIA, "--out", "two"]) == 130
    assert capsys.readouterr().err.endswith("hint: go on with `pfp compare-criteria --resume two`\n")
    assert not (inside / "two").exists()
    again: list[Any] = []
    monkeypatch.setattr(compare_criteria, "compare_all", lambda *args: again.append(args) or judge(*args))
    assert cli.run(["compare-criteria", "--resume", "two"]) == 0
    assert len(again) == 1
    err = capsys.readouterr().err
    assert "cached: criterion l1 · agreement at " in err
    assert "cached: criterion random" not in err
    assert compared(inside / "two") == compared(inside / "all")
    assert left() == before


def test_the_same_line_goes_on_as_well(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at("export", monkeypatch)

    def compress() -> None:
        with pytest.raises(KeyboardInterrupt):
            pfpcli.compress("model.pt", "imgs", keep=0.5, criterion="l2", threads=1, out="python")

    compress()
    monkeypatch.setattr(recover, "recover", lambda *_: pytest.fail("recovered again"))
    compress()


def test_steps_are_done_again_with_other_images_and_the_run_says_so(
    typed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = typed / "imgs" / "05.png"
    before = image.read_bytes()
    assert stopped("export", *LINE, "--out", "changed") == 130
    image.write_bytes(before + b"\0")  # the same picture in another file
    capsys.readouterr()
    try:
        assert stopped("export", "compress", "--resume", "changed", *AGAIN) == 130
    finally:
        image.write_bytes(before)
    err = capsys.readouterr().err
    assert "resume     begins anew, since it has changed: imgs " in err
    assert "cached: lsq" not in err


def test_without_the_cache_no_step_is_kept(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert stopped("export", *LINE[:12], "--no-cache", "--out", "uncached") == 130
    capsys.readouterr()
    assert stopped("export", "compress", "--resume", "uncached") == 130
    err = capsys.readouterr().err
    assert "recover    lsq on 12 images" in err
    assert "cached:" not in err


def test_a_run_that_ends_with_an_error_of_the_user_cannot_go_on(
    typed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (typed / "size.py").write_text(METRIC.replace("-os", "None or bad"), encoding="utf-8")
    assert cli.run([*LINE, "--out", "wrong"]) == 2
    assert cli.run(["compress", "--resume", "wrong", *AGAIN]) == 2
    assert "--resume wrong: no run of that name was interrupted" in capsys.readouterr().err
    # but what was finished stays, for the line without the mistake
    (typed / "size.py").write_text(METRIC, encoding="utf-8")
    assert stopped("measure", *LINE, "--out", "wrong") == 130
    assert "cached: model.onnx" in capsys.readouterr().err


@pytest.mark.skipif(not CAN_FORK, reason="two processes are forked")
def test_two_that_go_on_at_once_leave_whole_folders(
    whole: Path, typed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended(begun(lambda: stopped("compare", *LINE, "--out", "twice"))) == 130
    children = [begun(lambda: cli.run(["compress", "--resume", "twice", *AGAIN])) for _ in range(2)]
    codes = sorted(map(ended, children))
    said = capfd.readouterr().err
    assert codes in ([0, 0], [0, 2]), said
    assert codes == [0, 0] or "--resume twice: is running" in said
    made = sorted(path for path in typed.iterdir() if "twice" in path.name)
    assert len(made) == codes.count(0)
    assert all(same(path, whole) for path in made)
