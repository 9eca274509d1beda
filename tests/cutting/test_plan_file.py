"""Plans that are read back, and plans that follow each other: two cuts are one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from pfpcli.channels.cost import Predictor, count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import cut
from pfpcli.cutting.plan_file import follow, replan
from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.jobs import describe
from pfpcli.planning.plan import Budget, everything
from properties import random_drop
from zoo_blocks import NETS


def cut_at_random(graph: Graph, seed: int) -> tuple[Groups, dict[str, Any], Graph]:
    """A random plan as plan.json has it, and what it leaves."""
    groups = group(label(graph))
    alive = groups.alive(random_drop(groups, seed))
    while any(alive[row].sum() < 2 <= len(row) for g in groups.prunable for row in g.rows if len(g.rows) > 1):
        # a convolution whose groups keep a channel each is depthwise from then on, and can lose what it could not
        seed += 1
        alive = groups.alive(random_drop(groups, seed))
    kept = Slicing(groups.labelled, alive)
    whole = everything(groups, Predictor(groups), Budget())
    made = type(whole)(**{**vars(whole), "alive": alive})
    return groups, json.loads(describe.plan_json(made, kept, readers(groups))), cut(groups.labelled, alive).graph


@pytest.mark.parametrize("name", NETS)
def test_two_plans_that_follow_each_other_are_one_plan_of_the_original(name: str) -> None:
    net = NETS[name]
    groups, first, smaller = cut_at_random(trace(net.module(), net.example()), 0)
    _, second, smallest = cut_at_random(smaller, 10)
    names = {str(node.target) for node in groups.labelled.graph.nodes if node.op == "get_attr"}
    second["tensors"] = {name: dims for name, dims in second["tensors"].items() if name in names}
    made = replan(follow(first, second), groups, readers(groups))
    at_once = cut(groups.labelled, made.alive).graph
    expected, found = smallest.module.state_dict(), at_once.module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items() if key in names)
    assert count(at_once) == count(smallest) == made.after


def test_factors_of_plans_that_follow_each_other_are_multiplied() -> None:
    first = {"tensors": {}, "scale": {"a": [0.0, 2.0, 3.0], "b": [1.0]}}
    second = {"tensors": {}, "scale": {"a": [5.0, 0.0], "c": [7.0]}}
    assert follow(first, second)["scale"] == {"a": [0.0, 10.0, 0.0], "b": [1.0], "c": [7.0]}


def test_a_plan_of_another_network_is_refused() -> None:
    net = NETS["plain"]
    groups = group(label(trace(net.module(), net.example())))
    content = {"keep": 0.5, "of": "params", "epsilon": None, "scale": {}, "tensors": {"no.weight": {"0": [0]}}}
    with pytest.raises(InputError, match=r"plan\.json: names no\.weight, which this model does not have"):
        replan(content, groups, readers(groups))


def test_what_stays_of_each_group_is_counted() -> None:
    net = NETS["residual"]
    groups, content, _ = cut_at_random(trace(net.module(), net.example()), 3)
    made = replan(content, groups, readers(groups))
    for each, kept in zip(groups.groups, made.kept, strict=True):
        assert kept == np.count_nonzero(made.alive[each.rows[0]])
