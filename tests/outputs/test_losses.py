"""The distance of outputs goes by what is finite."""

from __future__ import annotations

import math

import torch

from pfpcli.graph.role import Role
from pfpcli.outputs.losses import distance, divergence, relative_distance
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget
from planned import plan
from residual_net import measured

LOGITS = Role(0, "y", "logits", 1, "")


def apart(output: torch.Tensor, whole: torch.Tensor) -> float:
    return relative_distance(distance([output], [whole]).numpy())


def test_a_mask_of_the_original_does_not_count() -> None:
    whole = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    other, mask = whole + 0.1, torch.tensor([0.0, 0, 0, 0, 0, -math.inf])
    assert apart(whole + mask, whole + mask) == 0
    assert abs(apart(other + mask, whole + mask) - apart(other[:, :5], whole[:, :5])) < 1e-6


def test_an_output_that_is_no_longer_finite_is_at_an_infinite_distance() -> None:
    whole = torch.randn(4, 6)
    for broken in (math.inf, -math.inf, math.nan):
        assert apart(torch.where(torch.eye(4, 6) > 0, broken, whole), whole) == math.inf


def test_curves_that_are_not_finite_leave_a_plan() -> None:
    groups, found, curves = measured()
    lost = [Curve(each.positions, each.kept, {"distance": each.losses["distance"] * math.nan}) for each in curves]
    assert abs(plan(groups, found, Budget(0.5), allocate="distance", curves=lost).achieved - 0.5) < 0.05


def test_a_class_that_the_original_rules_out_has_no_share_in_the_divergence() -> None:
    whole = torch.tensor([[1.0, 2.0, -torch.inf]])
    found = divergence([torch.tensor([[2.0, 1.0, 5.0]])], [whole], [LOGITS])
    expected = divergence([torch.tensor([[2.0, 1.0]])], [whole[:, :2]], [LOGITS])
    torch.testing.assert_close(found, expected)
