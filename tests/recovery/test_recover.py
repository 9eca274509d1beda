"""Recovering by one method: the table of methods, the check afterwards, and the undoing of what made things worse."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pfpcli
from distilled import Case, case, same, undecided
from pfpcli.cutting.cut import Cut
from pfpcli.records.parts import Quality, Recovered
from pfpcli.recovery import importance, methods
from pfpcli.recovery import recover as recover_module
from pfpcli.recovery.methods import RECOVERIES, RecoveryMethod, by_name
from pfpcli.recovery.recover import copy_tensors, recover
from pfpcli.recovery.task import RecoveryTask, TrainingLimits
from refits import dropped, grouped
from zoo import conv, head

SAMPLES = Path(__file__).parents[2] / "samples" / "images"


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def task(made: Case, limits: TrainingLimits | None = None) -> RecoveryTask:
    limits = limits or TrainingLimits(epochs=2, minutes=None, seed=0)
    return RecoveryTask(Cut(made.kept, made.smaller), made.division, torch.device("cpu"), limits)


# --- the table -------------------------------------------------------------------------------------------------------


def test_two_methods_with_the_same_name_are_refused() -> None:
    rows = [
        RecoveryMethod("mean", "one", "refit:refit_biases"),
        RecoveryMethod("mean", "another", "refit:refit_weights"),
    ]
    with pytest.raises(ValueError, match="two recovery methods are named mean"):
        by_name(rows)


@pytest.mark.parametrize("name", RECOVERIES)
def test_every_row_names_a_function(name: str) -> None:
    assert RECOVERIES[name].name == name
    assert callable(RECOVERIES[name].load())


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, pfpcli.recovery.methods; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- recovering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECOVERIES)
def test_no_method_leaves_a_network_worse_than_it_was(name: str, small: Case) -> None:
    before = small.tensors()
    found = recover(name, task(small))
    assert (found.method, found.metric, found.checked) == (name, "similarity", len(small.division.checked))
    assert found.before is not None
    assert found.after is not None
    assert found.undone == (found.after < found.before)
    assert same(small.tensors(), before) == (found.undone or found.after == found.before)


@pytest.mark.parametrize(("shares", "closer", "is_undone"), [
    ((0.0, 0.0), (0.5, 0.1), True),  # decides at random before and after, and is farther away
    ((0.0, 0.0), (0.1, 0.5), False),
    ((0.5, 0.4), (0.1, 0.5), False),  # one image in ten is no evidence
    ((0.9, 0.2), (0.1, 0.5), True),
    ((0.5, 0.6), (0.5, 0.1), False),
    ((0.2, 0.9), (0.5, 0.1), False),
])  # fmt: skip
def test_closeness_tells_where_the_decisions_of_few_images_cannot(
    shares: tuple[float, float],
    closer: tuple[float, float],
    is_undone: bool,
    small: Case,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared, close = [Quality("agreement", 1.0, share, share, 10, "", 0.5) for share in shares], [*closer]
    monkeypatch.setattr(recover_module, "compare", lambda *_, **__: compared.pop(0))
    monkeypatch.setattr(recover_module, "closeness", lambda *_: close.pop(0))
    assert recover("mean", task(small)).undone == is_undone


def test_a_method_that_makes_the_network_worse_is_undone(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    before = small.tensors()
    found = recover("spoil", task(small))
    assert found.undone
    assert (found.images, found.checked) == (7, len(small.division.checked))
    assert same(small.tensors(), before)


def test_without_checking_images_the_result_of_a_method_stays(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch)
    before = small.tensors()
    unchecked = replace(small, division=replace(small.division, checked=np.zeros(0, np.int64)))
    assert recover("spoil", task(unchecked)) == Recovered("spoil", "agreement", None, None, False, 7, 0)
    assert not same(small.tensors(), before)


def test_a_recovery_records_that_all_positions_counted_the_same(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recover("lsq", task(small)).remarks == []
    monkeypatch.setattr(importance, "MOST", 0)
    why = "lsq counts all positions of a map the same: the network is too large for a backward pass"
    assert recover("lsq", task(small)).remarks == [why]


def spoil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a method that multiplies all tensors by 10."""

    def multiply(task: RecoveryTask) -> int:
        for tensor in task.cut.graph.module.state_dict().values():
            tensor *= 10
        return 7

    row = RecoveryMethod("spoil", "multiplies all tensors by 10", "methods:multiply")
    monkeypatch.setattr(methods, "multiply", multiply, raising=False)
    monkeypatch.setitem(RECOVERIES, "spoil", row)


@pytest.mark.parametrize(("name", "unit"), [("lsq", "layers"), ("distill", "% of the training, closeness ")])
def test_methods_report_their_progress(name: str, unit: str, small: Case) -> None:
    told: list[tuple[int, int, str]] = []
    recover(name, replace(task(small), progress=lambda *progress: told.append(progress)))
    assert told
    assert all(0 <= done <= total and text.startswith(unit) for done, total, text in told)
    assert told[-1][0] == told[-1][1]


def test_only_training_keeps_a_state(small: Case, tmp_path: Path) -> None:
    assert [name for name, method in RECOVERIES.items() if method.trains] == ["distill"]

    def interrupt(done: int, total: int, unit: str) -> None:
        raise KeyboardInterrupt

    state = tmp_path / "some.training"
    limits = TrainingLimits(epochs=2, minutes=None, seed=0, state=state)
    with pytest.raises(KeyboardInterrupt):
        recover("distill", replace(task(small, limits), progress=interrupt))
    assert state.exists()


# --- copying ---------------------------------------------------------------------------------------------------------


def test_tensors_are_copied_by_name() -> None:
    torch.manual_seed(0)
    groups = grouped(nn.Sequential(conv(3, 6), head(6)), 3, 8, 8)
    (_, source), (_, target) = dropped(groups, 2), dropped(groups, 2)
    with torch.no_grad():
        for tensor in source.module.state_dict().values():
            tensor += 1
    copy_tensors(source, target)
    expected, found = source.module.state_dict(), target.module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


class Tied(nn.Module):
    """One weight in a convolution and in the transposed convolution that undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 8, 3, 3) / 8)
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(F.relu(self.first(x)), self.weight))
        return self.last(F.relu(F.conv_transpose2d(x, self.weight))).mean((2, 3))


def test_a_weight_used_in_two_forms_is_cut_and_not_refitted(tmp_path: Path) -> None:
    run = pfpcli.compress(
        Tied().eval(),
        SAMPLES,
        keep=0.5,
        criterion="l1",
        allocate="uniform",
        input_size=(3, 32, 32),
        out=tmp_path / "run",
    )
    assert run.record.after.params < run.record.before.params
