"""The best order: a group is ordered by the criterion whose order its layers can compensate best."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pfpcli.scoring.criteria import best_order
from pfpcli.scoring.criteria.activations import weight_activation
from pfpcli.scoring.criteria.sensitivity import sensitivity
from pfpcli.scoring.scores import Scores
from tasks import task
from traced import grouped
from zoo import ZOO


def test_of_two_orders_that_with_the_smaller_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = grouped("plain")
    images = torch.randn(32, *ZOO["plain"].inputs[0], generator=torch.Generator().manual_seed(0))
    shown = task(groups, images.split(8))
    shares = sensitivity(shown)
    # the opposite of an order that is good at all is worse
    good = weight_activation(shown).unit
    monkeypatch.setattr(best_order, "in_one_walk", lambda *_: [Scores(-good, shares.layers), Scores(good)])
    monkeypatch.setattr(best_order, "l2", lambda _: Scores(-good))
    found = best_order.auto(shown)
    assert found.layers == shares.layers
    for each in groups.prunable:
        np.testing.assert_array_equal(np.argsort(-found.of(each)), np.argsort(-good[each.units], kind="stable"))
        assert sorted(found.of(each)) == pytest.approx(np.arange(1, each.size + 1) / each.size)
