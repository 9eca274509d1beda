"""Channels are eliminated in the order in which the layers that read them can compensate them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.activations.ridge import damped
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from pfpcli.scoring.criteria.elimination import Block, eliminate
from tasks import scores


def grouped(module: nn.Module, *size: int) -> Groups:
    module.eval().requires_grad_(False)
    return group(label(trace(module, (torch.randn(2, *size),))))


def blocks_of(rows: torch.Tensor, weight: torch.Tensor, seats: list[int]) -> list[Block]:
    return [Block(rows.T @ rows / len(rows), weight, torch.tensor(seats))]


def left_over(rows: torch.Tensor, weight: torch.Tensor, stays: list[int]) -> float:
    """The squared error of the best refit, with the same ridge."""
    gram = damped(rows.T @ rows / len(rows), 1e-3)
    gone = [i for i in range(len(gram)) if i not in stays]
    if not stays:
        return float((weight * (gram @ weight)).sum())
    schur = gram[gone][:, gone] - gram[gone][:, stays] @ torch.linalg.solve(gram[stays][:, stays], gram[stays][:, gone])
    return float((weight[gone] * (schur @ weight[gone])).sum())


def test_the_errors_of_an_elimination_are_those_of_refits_from_scratch() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(50, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    rows[:, 5] = rows[:, 0] + 0.1 * rows[:, 5]
    order, errors = eliminate(blocks_of(rows, weight, [0, 1, 2, 3, 4, 5]), 6)
    assert sorted(order) == list(range(6))
    for k, error in enumerate(errors):
        stays = [i for i in range(6) if i not in order[: k + 1]]
        assert error == pytest.approx(left_over(rows, weight, stays), rel=1e-6)
    assert (np.diff(errors) >= 0).all()


def test_each_elimination_is_the_cheapest_there_is() -> None:
    torch.manual_seed(1)
    rows, weight = torch.randn(40, 8, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    seats = [0, 0, 1, 1, 2, 2, 3, 3]
    order, _ = eliminate(blocks_of(rows, weight, seats), 4)
    left = [0, 1, 2, 3]
    for gone in order[:-1]:
        costs = [left_over(rows, weight, [i for i, s in enumerate(seats) if s in left and s != u]) for u in left]
        assert left[int(np.argmin(costs))] == gone
        left.remove(int(gone))


def test_of_two_channels_that_say_the_same_one_goes_first_and_then_the_other_stays() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    with torch.no_grad():
        net[0].weight[4], net[0].bias[4] = 2 * net[0].weight[2], 2 * net[0].bias[2]
    groups = grouped(net, 3, 8, 8)
    found = scores(groups, torch.randn(64, 3, 8, 8).split(16), "obs")
    order = np.argsort(found.unit[groups.prunable[0].units])
    assert len({2, 4} & set(order[:1])) == 1
    assert len({2, 4} & set(order[:2])) == 1
