"""What has to be true after every cut, as checks that any network can be put through."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.channels.cost import Predictor, count
from pfpcli.channels.groups import Groups
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import cut
from pfpcli.cutting.masked import InFloat64, Masked
from pfpcli.graph.graph import Graph

#: float64 has 15.9 digits; sums in another order cost a few of them.
EXACT = 1e-12


def random_drop(groups: Groups, seed: int) -> np.ndarray:
    """Units to drop at random: a random share of each group, at least one stays."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(0.1, 0.9)
    picks = []
    for each in groups.prunable:
        count = int(share * (each.positions - 1) + rng.random())
        picks += [rng.choice(row, count, replace=False) for row in each.rows]
    return np.concatenate(picks) if picks else np.zeros(0, np.int64)


def drop_all_but(groups: Groups, left: int, seed: int = 0) -> np.ndarray:
    """Units to drop so that only so many of each group stay: the smallest network there is."""
    rng = np.random.default_rng(seed)
    picks = [rng.choice(row, max(0, g.positions - left), replace=False) for g in groups.prunable for row in g.rows]
    return np.concatenate(picks) if picks else np.zeros(0, np.int64)


def outputs(result: object) -> list[Tensor]:
    return tree_leaves(result)


def difference(first: object, second: object) -> float:
    pairs = list(zip(outputs(first), outputs(second), strict=True))
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-30)) for a, b in pairs if b.numel())


def assert_equals_masked(groups: Groups, alive: np.ndarray, smaller: Graph, inputs: Sequence[Tensor]) -> None:
    wide = [x.double() for x in inputs]
    assert difference(InFloat64(smaller.module).run(*wide), Masked(Slicing(groups.labelled, alive)).run(*wide)) < EXACT


def assert_costs_as_predicted(groups: Groups, alive: np.ndarray, smaller: Graph) -> None:
    assert Predictor(groups).predict(alive) == count(smaller)


def assert_nothing_dropped_changes_nothing(groups: Groups, inputs: Sequence[Tensor]) -> None:
    whole = groups.labelled.graph
    same = cut(groups.labelled, groups.alive(np.zeros(0, np.int64))).graph
    before, after = whole.module.state_dict(), same.module.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    with torch.no_grad():
        pairs = zip(outputs(whole.module(*inputs)), outputs(same.module(*inputs)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
