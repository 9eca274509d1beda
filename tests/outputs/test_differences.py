"""Differences: how far the numbers of two networks are apart."""

from __future__ import annotations

import math

import pytest
import torch

from pfpcli.outputs.differences import Differences
from pfpcli.outputs.kinds.kind import FARTHEST


def test_differences_of_all_batches_are_joined() -> None:
    found = Differences()
    found.add(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.5]]))
    found.add(torch.tensor([[-4.0, 0.0]]), torch.tensor([[-4.0, 0.1]]))
    assert (found.largest, found.peak, found.count) == (0.5, 4.0, 4)
    assert found.mean == pytest.approx(0.15)


def test_a_difference_may_be_a_share_of_the_largest_number() -> None:
    found = Differences()
    found.add(torch.tensor([100.0, 1.0]), torch.tensor([100.0, 1.5]))
    assert found.allowed(0.1, 0.004) == pytest.approx(0.5)
    assert found.is_within(0.1, 0.004)
    assert not found.is_within(0.0, 0.004)


def test_numbers_that_are_not_finite_in_the_same_way_do_not_differ() -> None:
    found = Differences()
    found.add(torch.tensor([math.nan, math.inf, -math.inf, 1.0]), torch.tensor([math.nan, math.inf, -math.inf, 1.0]))
    assert (found.largest, found.mean, found.peak) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("other", [math.nan, math.inf, 1.0])
def test_a_number_that_is_not_finite_in_one_network_alone_is_as_far_as_can_be(other: float) -> None:
    found = Differences()
    found.add(torch.tensor([-math.inf]), torch.tensor([other]))
    assert found.largest == FARTHEST
    assert not found.is_within(1.0, 1.0)


def test_whole_numbers_and_truths_are_compared_as_numbers() -> None:
    found = Differences()
    found.add(torch.tensor([1, 2, 3]), torch.tensor([1, 2, 5]))
    found.add(torch.tensor([True]), torch.tensor([False]))
    assert (found.largest, found.count) == (2.0, 4)
