"""Budgets that are amounts: parameters, MACs, file size, latency."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from commands import compress
from pfpcli.cli import main as cli
from pfpcli.errors import InputError
from pfpcli.exporting import in_8_bits
from pfpcli.exporting.int8 import CannotConvert
from pfpcli.jobs.steps import budget
from pfpcli.jobs.steps.budget import met
from pfpcli.jobs.steps.plan import Planned
from pfpcli.latency.operators import Operator
from pfpcli.latency.table import Table
from pfpcli.planning.plan import Budget
from pfpcli.planning.portfolio import Tried
from pfpcli.progress import Console
from pfpcli.records.parts import Cost
from pfpcli.records.runs import Run
from pfpcli.report.run import render


def run(here: Path, **settings: Any) -> Run:
    how = {"criterion": "l2", "allocate": "uniform", "recover": (), **settings}
    return compress(here / "model.onnx", here / "imgs", here / "run", **how)


@pytest.fixture(scope="module")
def whole(here: Path) -> Cost:
    """What the network costs."""
    return run(here, keep=1.0).before


@pytest.mark.parametrize("of", ["params", "macs"])
def test_a_number_of_parameters_or_macs_is_met(here: Path, whole: Cost, of: str) -> None:
    amount = 0.6 * getattr(whole, of)
    found = run(here, **{of: amount})
    assert getattr(found.after, of) == pytest.approx(amount, rel=0.06)
    assert found.requested["of"] == of
    assert found.requested["amount"]


def test_the_written_file_has_the_size_that_was_asked_for(here: Path, whole: Cost) -> None:
    found = run(here, size=f"{0.7 * whole.file_bytes / 1000:.3f}kB")
    assert found.after.file_bytes == pytest.approx(0.7 * whole.file_bytes, rel=0.03)
    assert found.achieved["exact"]
    assert found.achieved["keep"] == pytest.approx(found.after.file_bytes / whole.file_bytes, abs=1e-5)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The precisions of the tables that are made; their times do not depend on the machine."""
    precisions = []

    def complete(table: Table, operators: list[Operator], progress: object) -> int:
        precisions.append(table.conversion.precision)
        table.operators = {each.key: float(math.prod(each.made)) for each in operators}
        return len(operators)

    monkeypatch.setattr(Table, "complete", complete)
    return precisions


def test_a_part_of_the_latency_leads_to_a_network_that_is_measured(
    here: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a busy machine another budget would be tried
    monkeypatch.setattr(budget.Meter, "share", lambda self, plan: 0.9)
    found = run(here, latency=0.9, allocate="best")
    assert {each["name"] for each in found.scoring["plans"]} & {"distance", "macs-distance"}
    asked = {"keep": 0.9, "of": "latency", "precision": "float32", "epsilon": None, "amount": "0.9"}
    assert found.requested == asked
    assert found.after.macs < found.before.macs
    assert timed == ["float32"]
    assert "time" in found.timings
    assert "check" in found.timings
    speed_up = found.latency["speed_up"]
    assert speed_up["low"] <= speed_up["times"] <= speed_up["high"]


def test_with_an_int8_file_its_latency_is_the_budget(here: Path, timed: list[str]) -> None:
    found = run(here, latency=0.9, int8=True)
    assert found.requested["precision"] == "int8"
    int8 = found.precisions[1]
    assert int8.file == "model-int8.onnx"
    assert found.achieved["keep"] == pytest.approx(int8.share, abs=1e-6)
    assert "of the latency in int8" in render(found)
    assert run(here, keep=0.9, int8=True).requested["precision"] == "float32"
    assert run(here, latency=0.9).precisions == []
    assert timed == ["int8", "float32"]


def test_a_network_that_cannot_be_in_int8_has_no_latency_in_int8(
    here: Path, timed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch)
    with pytest.raises(InputError, match=r"--int8 --latency: the network cannot be timed in int8 \(it is of opset 3\)"):
        run(here, latency=0.9, int8=True)


def test_layers_that_cannot_be_timed_are_one_clear_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    with pytest.raises(InputError, match="onnxruntime runs none of the 6 layers in int8"):
        run(here, latency=0.9, int8=True)


def refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the quantiser refuse all networks."""

    def prepared(*_: object) -> None:
        raise CannotConvert("it is of opset 3")

    monkeypatch.setattr(in_8_bits, "prepared", prepared)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--params", "10M"], "--params 10M: the network has"),
        (["--size", "1GB"], "--size 1GB: the network has"),
        (["--latency", "10s"], "--latency 10s: the network has"),
        (["--latency", "4"], "--latency 4: expected a fraction of the original's, or an amount such as 4ms"),
        (["--latency", "0.5", "--keep", "0.5"], "--keep --latency: several budgets"),
        (["--size", "0.5", "--macs", "0.5"], "--macs --size: several budgets"),
        (["--latency", "0.5", "--steps", "2"], "--steps 2: the latency is measured on one written file"),
        (["--latency-table", "t.json"], "--latency-table: the budget is no latency"),
        (["--latency", "0.5", "--latency-table", "none.json"], "--latency-table none.json: cannot be read"),
        (["--latency", "0.01"], "--latency 0.01: not reachable; the smallest valid network keeps"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused_before_anything_is_scored(
    here: Path,
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(here)
    assert cli.run(["compress", "model.onnx", "--calib", "imgs", "--criterion", "l2", *flags, "--out", "no"]) == 2
    said = capsys.readouterr().err
    assert message in said.replace("\n", " ")
    assert "score " not in said
    assert not (here / "no").exists()


class Meter:
    """Measures a file as a known function of the predicted ratio."""

    of = noun = "latency"

    def __init__(self, measured: Any) -> None:
        self.measured, self.asked = measured, 0

    def share(self, plan: Any) -> float:
        self.asked += 1
        return float(self.measured(plan.achieved))


#: What was tried for the first guess.
TRIED = [("between", 0.1), ("error", 0.2), ("distance", 0.3)]


def planned(budget: Budget, like: Tried | None) -> Planned:
    assert like is None or (like.name, like.loss) == TRIED[0]  # later plans are like the best one
    plan: Any = SimpleNamespace(achieved=budget.keep, budget=budget)
    tried = [] if like else [Tried(name, loss, plan) for name, loss in TRIED]
    return Planned(plan, tried, [])


@pytest.mark.parametrize(
    "measured",
    [lambda p: p, lambda p: 0.3 + 0.7 * p, lambda p: p**1.5, lambda p: 1.2 * p - 0.2 if p > 0.3 else p / 2],
    ids=["exact", "overhead", "curved", "too quick"],
)
def test_plans_are_made_until_the_file_meets_the_budget(measured: Any) -> None:
    meter = Meter(measured)
    found = met(planned, meter, 0.6, Budget(0.6, "latency"), 0.01, Console())  # type: ignore[arg-type]
    assert found.measured == pytest.approx(0.6, rel=0.03)
    assert meter.asked <= 4
    # the report names all of them after any number of files
    assert [(each.name, each.loss) for each in found.tried] == TRIED


def test_a_file_that_is_too_quick_and_one_that_is_too_slow_lead_to_one_between() -> None:
    # where widths of one step have the same latency, the line through two files that are too slow is far too flat
    meter = Meter(lambda p: np.interp(p, [0, 0.489, 0.659, 0.7, 1], [0.3, 0.58, 0.729, 0.737, 1]))
    found = met(planned, meter, 0.7, Budget(0.7, "latency"), 0.01, Console())  # type: ignore[arg-type]
    assert found.measured == pytest.approx(0.7, rel=0.03)


def test_the_closest_file_is_taken_where_none_meets_the_budget() -> None:
    meter = Meter(lambda p: 0.8 + 0.2 * p)
    found = met(planned, meter, 0.5, Budget(0.5, "latency"), 0.3, Console())  # type: ignore[arg-type]
    assert found.plan.achieved == pytest.approx(0.3)
    assert meter.asked == 2


def test_networks_are_compared_with_the_first(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    run(here, keep=0.5)
    monkeypatch.chdir(here)
    flags = ["--input-size", "3,8,8", "--threads", "1", "--json"]
    assert cli.run(["bench", "model.pt", "run", "run/model.onnx", *flags]) == 0
    rows = json.loads(capsysbinary.readouterr().out)["rows"]
    assert [row["name"] for row in rows] == ["model.pt", "run", "model.onnx"]
    assert rows[0]["speed_up"] is None
    assert rows[1]["speed_up"]["low"] <= rows[1]["speed_up"]["high"]
    assert all(row["median_ms"] > 0 and row["input_size"] == [3, 8, 8] for row in rows)
    assert cli.run(["bench", "run", "run", "--md", "--batch", "1,2"]) == 0
    assert capsysbinary.readouterr().out.count(b"| run |") == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["model.pt"], "model.pt: the file does not say how large its input is"),
        (["none.onnx"], "none.onnx"),
        (["run", "--batch", "0"], "--batch 0: expected numbers from 1 up"),
        (["run", "--runtime", "tensorrt"], "expected one of onnxruntime, torch"),
        (["run", "--provider", "NoneProvider"], "--provider NoneProvider: this onnxruntime has"),
        (["run/model.onnx", "--runtime", "torch"], "--runtime torch runs no ONNX file"),
        (["run", "--md", "--json"], "--md --json: two formats"),
    ],
)
def test_what_cannot_be_timed_is_one_clear_line(
    here: Path,
    flags: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not (here / "run").exists():
        run(here, keep=0.5)
    monkeypatch.chdir(here)
    assert cli.run(["bench", *flags]) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_the_layers_of_a_network_are_shown_with_their_times(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(here)
    flags = ["--input-size", "3,8,8", "--threads", "1", "--pack", "pack.pyz"]
    assert cli.run(["latency", "model.pt", *flags, "--json"]) == 0
    found = json.loads(capsysbinary.readouterr().out)
    layers = found["layers"]
    assert sum(layer["predicted_ms"] for layer in layers) == pytest.approx(found["predicted_ms"], abs=1e-2)
    assert any(layer["measured_ms"] for layer in layers)
    assert (here / "pack.pyz").exists()
    assert cli.run(["latency", "model.pt", *flags]) == 0
    assert b"python3 pack-2.pyz table.json" in capsysbinary.readouterr().out  # no file is overwritten
