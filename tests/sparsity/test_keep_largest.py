"""The weights with the largest scores of all layers."""

from __future__ import annotations

import torch

from pfpcli.sparsity.choose import keep_largest, rankable


def test_the_largest_of_all_layers_stay_and_the_first_of_equal_ones() -> None:
    scores = [torch.tensor([[0.3, 0.5], [0.1, 0.5]]), torch.tensor([0.5, 0.9, 0.0])]
    kept = keep_largest(scores, 3)
    assert [each.tolist() for each in kept] == [[[False, True], [False, True]], [False, True, False]]
    for budget in range(9):
        assert sum(int(each.sum()) for each in keep_largest(scores, budget)) == min(budget, 7)


def test_no_budget_goes_to_weights_that_are_zero_already() -> None:
    weight = torch.tensor([0.0, -3, 0, 1, 2])
    assert keep_largest([rankable(weight.abs(), weight)], 2)[0].tolist() == [False, True, False, False, True]
    assert keep_largest([rankable(torch.zeros(5), weight)], 5)[0].tolist() == [False, True, False, True, True]
