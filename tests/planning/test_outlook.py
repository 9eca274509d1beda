"""How much to keep, so that less is lost."""

from __future__ import annotations

import pytest
import torch

from pfpcli.planning.outlook import STEPS, keep_for
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import Planner
from residual_net import Blocks, measured
from tasks import grouped, scores


@pytest.mark.parametrize("keep", [0.1, 0.45, 0.9])
def test_the_ratio_is_the_smallest_that_is_expected_to_lose_the_share(keep: float) -> None:
    groups, found, made = measured()

    def loss(ratio: float) -> float:
        planner = Planner(groups, found, Budget(ratio), curves=made)
        return planner.expected_loss(planner.by("distance"))

    for share in (0.9, 0.5, 0.1):
        asked = keep_for(share, groups, found, Budget(keep), made)
        ratios = [n / STEPS for n in range(1, STEPS) if n / STEPS > keep + 1e-6]
        assert asked == next((ratio for ratio in ratios if loss(ratio) <= share * loss(keep)), None)
    assert keep_for(1e-9, groups, found, Budget(keep), made) is None


def test_nothing_is_said_without_curves_or_where_an_error_was_asked_for() -> None:
    groups = grouped(Blocks(), torch.randn(2, 3, 8, 8))
    found = scores(groups, [torch.randn(8, 3, 8, 8)], "l2")
    assert keep_for(0.5, groups, found, Budget(0.5), []) is None
    assert keep_for(0.5, groups, found, Budget(epsilon=0.1), []) is None
