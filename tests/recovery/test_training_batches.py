"""Training batches: order, size and memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distilled import Case, case, undecided
from pfpcli.recovery import training_batches
from pfpcli.recovery.training_batches import TrainingBatches


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def test_a_batch_larger_than_all_images_is_filled_with_repetitions(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path)
    images = TrainingBatches(made.division.calibration, np.arange(3), 8, fixed=True, seed=0)
    assert [len(x) for x, _ in images.epoch(0)] == [8]


def test_each_epoch_has_its_own_order_and_can_start_in_the_middle(small: Case) -> None:
    images = TrainingBatches(small.division.calibration, small.division.fitted, 7, fixed=False, seed=3)
    first, second = ([x for x, _ in images.epoch(number)] for number in (0, 1))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(torch.cat(first).sum((1, 2, 3)).sort().values, torch.cat(second).sum((1, 2, 3)).sort().values)
    assert all(torch.equal(a, b) for a, (b, _) in zip(first[2:], images.epoch(0, 2), strict=True))
    assert len(images) == len(first)


def test_images_that_do_not_fit_in_memory_come_in_the_same_order(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list[Tensor]:
        images = TrainingBatches(small.division.calibration, small.division.fitted, 7, fixed=True, seed=3)
        return [x for x, _ in images.epoch(1, 1)]

    held = batches()
    monkeypatch.setattr(training_batches, "KEPT_BYTES", 0)
    assert all(torch.equal(a, b) for a, b in zip(held, batches(), strict=True))
