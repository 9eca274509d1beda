"""The smallest network within --max-drop: what is tried, what is chosen, and what is said about it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import onnx_files
import pfpcli
from commands import draw
from pfpcli.cli import main as cli
from pfpcli.errors import BudgetError, InputError
from pfpcli.jobs.steps import search
from pfpcli.jobs.steps.search import bisect
from pfpcli.records.reading import read
from zoo import conv

#: Whole commands search with this precision.
COARSE = 0.1
FAST = {"criterion": "l2", "allocate": "uniform", "task": "classify", "threads": 1}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network and images; an ONNX file is cut without an export."""
    folder = tmp_path_factory.mktemp("search")
    torch.manual_seed(0)
    # it looks at every pixel, so that it decides differently about different noise
    classifier = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 5))
    module = nn.Sequential(conv(3, 24), conv(24, 16), classifier).eval()
    onnx_files.write(module, torch.randn(2, 3, 8, 8), folder / "model.onnx")
    draw(folder / "imgs", 330)
    draw(folder / "few", 40, seed=1)
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(here)
    monkeypatch.setattr(search, "PRECISION", COARSE)
    return here


def found(**settings: Any) -> pfpcli.Result:
    return pfpcli.compress("model.onnx", settings.pop("calib", "imgs"), **{**FAST, **settings})


@pytest.mark.parametrize("least", [0.03, 0.5, 0.613, 0.97])
def test_bisection_ends_with_a_good_budget_just_above_the_limit(least: float) -> None:
    asked: list[float] = []

    def is_good(keep: float) -> bool:
        asked.append(keep)
        return keep >= least

    bisect(is_good)
    best = min(keep for keep in asked if keep >= least)
    assert least <= best <= least * (1 + 2 * search.PRECISION)
    assert len(asked) <= 12


@pytest.fixture(scope="module")
def searched(here: Path) -> pfpcli.Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setattr(search, "PRECISION", COARSE)
        return found(max_drop="20%", out=here / "searched")


def test_the_smallest_network_within_the_fall_is_made(searched: pfpcli.Result) -> None:
    record = searched.record.search
    assert record is not None
    assert record.achieved.fall <= record.asked == 0.2
    good = [point.achieved for point in record.points if point.within]
    assert min(each for each in good if each is not None) == pytest.approx(searched.record.achieved["keep"], abs=1e-6)
    assert any(not point.within for point in record.points)
    assert searched.folder.name == "searched"


def test_other_images_confirm_the_network_than_those_that_chose_it(searched: pfpcli.Result) -> None:
    record = searched.record
    assert record.search is not None
    assert record.search.confirmed is not None
    assert (record.search.achieved.images, record.search.confirmed.images) == (55, 55)
    assert record.search.achieved.source == "held-out images that chose the network"
    # the quality of the report is that on the images that nothing has used
    assert (record.quality.n, record.quality.after) == (55, record.search.confirmed.after)
    assert record.search.achieved.after != record.search.confirmed.after


def test_the_network_is_the_one_that_its_budget_makes(searched: pfpcli.Result, inside: Path) -> None:
    again = found(keep=searched.record.requested["keep"], out="again")
    assert (again.folder / "plan.json").read_bytes() == (searched.folder / "plan.json").read_bytes()
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(again.module()(x), searched.module()(x))


def test_the_report_says_what_was_asked_achieved_and_confirmed(
    searched: pfpcli.Result, inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["report", "searched"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "asked agreement falls by at most 20.0 pp" in text
    assert "achieved a fall of" in text
    assert "on 55 held-out images that chose the network" in text
    assert "confirmed a fall of" in text
    assert "on 55 held-out images that nothing has used" in text


def test_the_record_is_read_as_it_was_written(searched: pfpcli.Result) -> None:
    assert read(searched.folder) == searched.record
    assert json.loads((searched.folder / "run.json").read_text(encoding="utf-8"))["settings"]["max_drop"] == 0.2


def test_too_few_images_confirm_nothing_and_promise_nothing(inside: Path) -> None:
    record = found(calib="few", max_drop="30%").record
    assert record.search is not None
    assert record.search.confirmed is None
    assert record.quality.source == "held-out images that chose the network"
    (said,) = (text for text in record.warnings if "too few to promise" in text)
    assert said.startswith("13 images are too few to promise a fall of at most 30.0 pp")
    assert "the network was chosen on them" in said


@pytest.mark.slow
def test_an_explicit_budget_makes_the_fall_a_gate(inside: Path) -> None:
    record = found(keep=0.2, max_drop=0.0).record
    assert record.search is None
    assert record.status == "failed"
    assert "more than --max-drop 0" in record.failure


def test_a_fall_that_no_smaller_network_keeps_is_refused(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = pfpcli.records.searched.Fall("agreement", "pp", 1.0, 0.5, 0.4, 0.6, 55, "images")
    monkeypatch.setattr(search, "_on", lambda *_, **__: bad)
    with pytest.raises(BudgetError, match=r"--max-drop 0\.01: every smaller network that was tried falls further"):
        found(max_drop="1%", out="none")
    assert not (inside / "none").exists()


# --- a metric of the user ------------------------------------------------------------------------------------------

METRIC = """
import onnxruntime
calls = []
def smallness(onnx_file, folder):
    import os
    calls.append(onnx_file)
    return os.path.getsize(onnx_file) / 100
"""


def test_a_metric_of_the_user_is_searched_with_a_file_for_each_network(
    inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "PRECISION", 0.4)
    (inside / "metric.py").write_text(METRIC, encoding="utf-8")
    record = found(metric="metric.py:smallness", max_drop=200).record
    assert record.search is not None
    assert record.metric is not None
    assert record.search.achieved.after == record.metric.after
    assert record.search.achieved.fall <= 200 < record.metric.before
    assert record.search.achieved.images is None
    assert record.search.confirmed is None
    assert any("nothing says how far chance has moved it" in text for text in record.warnings)


# --- units ---------------------------------------------------------------------------------------------------------


def test_decibels_are_refused_where_the_network_makes_no_pictures(inside: Path) -> None:
    with pytest.raises(InputError, match=r"--max-drop 0\.5dB: the network puts out logits, no pictures"):
        found(max_drop="0.5dB", out="pictures")
    assert not (inside / "pictures").exists()


# --- an interrupt --------------------------------------------------------------------------------------------------


def stopping(after: int) -> tuple[Callable[..., Any], list[float]]:
    """A `_tried` that is interrupted once so many networks were tried, and their budgets."""
    tried, whole = [], search._tried

    def now(make: Any, measure: Any, asked: Any, budget: Any, console: Any) -> Any:
        if len(tried) == after:
            raise KeyboardInterrupt
        tried.append(budget.keep)
        return whole(make, measure, asked, budget, console)

    return now, tried


def test_an_interrupted_search_goes_on_where_it_stopped(
    searched: pfpcli.Result, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [point.keep for point in searched.record.search.points]  # type: ignore[union-attr]
    first, tried = stopping(3)
    with monkeypatch.context() as patch:
        patch.setattr(search, "_tried", first)
        with pytest.raises(KeyboardInterrupt):
            found(max_drop="20%", out="interrupted")
    assert tried == asked[:3]
    assert not (inside / "interrupted").exists()
    second, tried = stopping(-1)
    monkeypatch.setattr(search, "_tried", second)
    again = found(max_drop="20%", out="interrupted")
    assert tried == asked[3:]
    assert again.record.search == searched.record.search
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(again.module()(x), searched.module()(x))


def test_a_search_that_has_ended_leaves_nothing_in_the_cache(searched: pfpcli.Result) -> None:
    assert not list(Path(os.environ["PFP_CACHE"]).glob("unfinished/*/search-*"))
