"""How far outputs are from those that a network should give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pfpcli.graph.difference import largest_difference


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_equal_numbers_that_are_not_finite_do_not_differ(odd: float) -> None:
    assert largest_difference([torch.tensor([1.0, odd])], [torch.tensor([1.5, odd])]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("found", [1.0, -math.inf, math.nan])
def test_a_number_that_should_be_infinite_and_is_not_is_infinitely_far_off(found: float) -> None:
    assert largest_difference([torch.tensor([found])], [torch.tensor([math.inf])]) == math.inf


@pytest.mark.parametrize("found", [math.inf, math.nan])
def test_a_number_that_should_be_finite_and_is_not_is_infinitely_far_off(found: float) -> None:
    assert largest_difference([torch.tensor([found]), torch.ones(1)], [torch.tensor([2.0]), torch.ones(1)]) == math.inf


def test_the_largest_difference_of_all_outputs_counts_relative_to_each_output() -> None:
    expected = [np.array([10.0, -100.0]), torch.tensor([True, False])]
    assert largest_difference([np.array([11.0, -100.0]), torch.tensor([True, True])], expected) == 1.0
    assert largest_difference([np.array([11.0, -100.0]), torch.tensor([True, False])], expected) == pytest.approx(0.01)


def test_other_shapes_are_infinitely_far_off() -> None:
    assert largest_difference([torch.ones(2)], [torch.ones(3)]) == math.inf
