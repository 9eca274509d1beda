"""`pfp sweep`: one model at several budgets, one run folder each, one table."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import pfpcli
from pfpcli.cli import main as cli
from pfpcli.errors import BudgetError, InputError
from pfpcli.jobs import sweep as job
from pfpcli.jobs.steps import network, plan
from pfpcli.records.compared_runs import compare
from pfpcli.records.provenance import MadeFrom
from pfpcli.records.reading import read

FAST = {"criterion": "l2", "task": "classify", "threads": 1}
KEEPS = (0.7, 0.5, 0.3)


def sweep(out: str, keep: Any = KEEPS, **settings: Any) -> pfpcli.Sweep:
    return pfpcli.sweep("model.onnx", "imgs", keep=keep, out=out, **{**FAST, **settings})


@pytest.fixture(scope="module")
def swept(here: Path) -> pfpcli.Sweep:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        return sweep(str(here / "swept"))


def test_each_budget_gets_a_whole_run_folder_below_the_folder_of_the_sweep(swept: pfpcli.Sweep) -> None:
    assert {path.name for path in swept.folder.iterdir()} == {
        "keep0.7",
        "keep0.5",
        "keep0.3",
        "sweep.json",
        "sweep.html",
    }
    for keep, compared in zip(KEEPS, swept.record.runs, strict=True):
        run = read(swept.folder / compared.name)
        assert (run.settings["keep"], run.after.params) == (keep, compared.measures["params"])
        assert {path.name for path in (swept.folder / compared.name).iterdir()} >= {
            "model.onnx",
            "plan.json",
            "run.json",
        }
    assert json.loads((swept.folder / "sweep.json").read_text(encoding="utf-8")) == json.loads(swept.record.json())


def test_a_run_of_a_sweep_is_the_run_of_its_budget(swept: pfpcli.Sweep, inside: Path) -> None:
    alone = pfpcli.compress("model.onnx", "imgs", keep=0.5, out="alone", **FAST)
    assert (alone.folder / "plan.json").read_bytes() == (swept.folder / "keep0.5" / "plan.json").read_bytes()
    x = torch.randn(3, 3, 8, 8)
    found = torch.export.load(swept.folder / "keep0.5" / "model.pt2").module()
    assert torch.equal(found(x), alone.module()(x))
    ours, theirs = read(swept.folder / "keep0.5"), read(alone.folder)
    assert ours.settings == {**theirs.settings, "out": None}
    assert set(ours.timings) - {"sweep"} <= {*theirs.timings}


def test_the_channels_are_scored_and_the_curves_are_measured_once(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[str] = []
    for module, name in ((network, "score_channels"), (plan, "measure_curves")):
        whole = getattr(module, name)
        counted = lambda *args, whole=whole, name=name: calls.append(name) or whole(*args)  # noqa: E731
        monkeypatch.setattr(module, name, counted)
    line = ["sweep", "model.onnx", "--calib", "imgs", "--keep", "70%,0.5", "--criterion", "l2", "--task", "classify"]
    assert cli.run([*line, "--threads", "1", "--no-cache", "--out", "counted", "--json"]) == 0
    assert sorted(calls) == ["measure_curves", "score_channels"]
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == "counted"
    assert [run["name"] for run in printed["runs"]] == ["keep0.7", "keep0.5"]


def test_the_runs_are_compared_as_pfp_compare_does(swept: pfpcli.Sweep) -> None:
    folders = [swept.folder / f"keep{keep}" for keep in KEEPS]
    assert swept.record == compare([(folder, read(folder)) for folder in folders])
    assert "params" in swept.record.runs[-1].front
    assert [each.name for each in swept.record.differences if each.part == "settings"] == ["keep"]


def test_the_page_of_a_sweep_links_to_the_pages_of_its_runs(swept: pfpcli.Sweep) -> None:
    page = (swept.folder / "sweep.html").read_text(encoding="utf-8")
    links = set(re.findall(r'href="(.*?)"', page))
    assert links == {f"./keep{keep}/report.html" for keep in KEEPS}
    assert all((swept.folder / link).is_file() for link in links)
    assert "are points of the sweep swept." in page
    assert swept.record.made_from == [MadeFrom("swept", "swept", None, [1, 2, 3])]


@pytest.mark.parametrize(
    ("keep", "error", "message"),
    [
        ((0.5, 2.0), InputError, "--keep 2: expected a fraction above 0"),
        ((0.5, 0.5), InputError, "--keep 0.5,0.5: expected different fractions"),
        ((), InputError, "--keep nothing: expected different fractions"),
        ((0.5, 0.0001), BudgetError, "--keep 0.0001: not reachable"),
    ],
)
def test_budgets_that_cannot_be_are_refused_before_any_run(
    keep: tuple[float, ...], error: type[Exception], message: str, inside: Path
) -> None:
    with pytest.raises(error, match=message):
        sweep("refused", keep)
    assert not (inside / "refused").exists()


# --- an interrupt --------------------------------------------------------------------------------------------------


def interrupt_after(runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupt a sweep before the run that follows so many."""
    whole, done = job.write_run, []

    def now(*args: Any) -> Any:
        if len(done) == runs:
            raise KeyboardInterrupt
        done.append(args)
        return whole(*args)

    monkeypatch.setattr(job, "write_run", now)


def test_an_interrupted_sweep_keeps_its_finished_runs_and_goes_on(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sweep", "model.onnx", "--calib", "imgs", "--keep", "0.7,0.5", "--criterion", "l2", "--task", "classify"]
    line += ["--threads", "1", "--allocate", "uniform", "--out", "interrupted", "--int8"]
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert cli.run(line) == 130
    assert capsys.readouterr().err.endswith("hint: go on with `pfp sweep --resume interrupted`\n")
    first = (inside / "interrupted" / "keep0.7" / "run.json").read_bytes()
    assert not (inside / "interrupted" / "keep0.5").exists()
    assert cli.run(["sweep", "--resume", "interrupted"]) == 0
    out, err = capsys.readouterr()
    assert "finished before: keep 70.0 %" in err
    assert [line[5:17].strip() for line in out.splitlines()[:6]] == [
        "run", "keep0.7", "keep0.7 int8", "keep0.5", "keep0.5 int8", "original"
    ]  # fmt: skip
    assert (inside / "interrupted" / "keep0.5" / "model-int8.onnx").is_file()
    assert "wrote interrupted/    next: pfp report interrupted/keep0.5, or open sweep.html" in err
    assert (inside / "interrupted" / "keep0.7" / "run.json").read_bytes() == first
    assert {path.name for path in (inside / "interrupted").iterdir()} == {
        "keep0.7",
        "keep0.5",
        "sweep.json",
        "sweep.html",
    }
    assert not (inside / "interrupted-2").exists()


def test_a_sweep_that_is_interrupted_before_its_first_run_leaves_nothing(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        sweep("nothing/left")
    assert not (inside / "nothing").exists()


@pytest.mark.slow
def test_another_sweep_does_not_go_on_in_the_folder_of_an_interrupted_one(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            sweep("other", allocate="uniform")
    assert sweep("other", (0.6,), allocate="uniform", multiple_of=2).folder == Path("other-2")
