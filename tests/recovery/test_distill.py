"""Distillation: a cut network learns from its original without labels, and never gets worse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from distilled import Case, case, case_of, divided, same, undecided
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.trace import trace
from pfpcli.models.load import load
from pfpcli.recovery import distill
from pfpcli.recovery.closeness import closeness
from pfpcli.recovery.trainable import trainable
from traced import grouped
from zoo import ZOO, Calls, conv, head

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def test_the_sample_network_agrees_more_with_its_original_afterwards() -> None:
    graph = trace(load(SAMPLES / "model.pt").module, (torch.randn(2, 3, 32, 32),))
    groups = group(label(graph))
    rows = [row for each in groups.prunable for row in each.rows]
    alive = groups.alive(np.concatenate([row[: len(row) // 4] for row in rows]))
    division = divided(SAMPLES / "images", (3, 32, 32))
    made = Case(graph, *cut(groups.labelled, alive), division)
    before = closeness(graph, made.smaller, division.judging())
    found = made.distill(epochs=5)
    assert found.has_helped
    assert found.after > found.before + 0.1
    assert found.images == len(division.fitted)
    assert closeness(graph, made.smaller, division.judging()) > before + 0.1


def test_a_network_that_does_not_get_better_keeps_its_tensors(small: Case) -> None:
    before = small.tensors()
    found = small.distill(rate=1e6)
    assert not found.has_helped
    assert found.after == found.before
    assert same(small.tensors(), before)


@pytest.mark.parametrize("net", [name for name, net in ZOO.items() if net.inputs == ((3, 8, 8),)])
def test_no_network_of_the_zoo_is_worse_afterwards(net: str, tmp_path: Path) -> None:
    made = case_of(grouped(net), tmp_path)
    before = closeness(made.whole, made.smaller, made.division.checking())
    found = made.distill(epochs=1)
    assert found.before == pytest.approx(before)
    assert found.after >= found.before
    assert closeness(made.whole, made.smaller, made.division.checking()) == pytest.approx(found.after)


def test_a_network_without_decisions_comes_closer(small: Case) -> None:
    found = small.distill(epochs=4)
    assert found.has_helped
    assert found.after > found.before


def test_a_network_of_several_outputs_learns_from_all_of_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {"stem": conv(3, 12), "body": conv(12, 12), "out": head(12), "map": nn.Conv2d(12, 1, 1)}
    made = case(Calls(lambda m, x: {"a": m.out(y := m.body(m.stem(x))), "b": m.map(y)}, **parts).eval(), tmp_path)
    x = torch.randn(8, 3, 8, 8)

    def distance(name: str) -> float:
        with torch.no_grad():
            return float((made.whole.module(x)[name] - made.smaller.module(x)[name]).square().mean())

    before = {name: distance(name) for name in "ab"}
    loss = distill.DistillationLoss(Cut(made.kept, made.smaller))
    generator = torch.Generator().manual_seed(0)
    with trainable(made.smaller) as tensors:
        optimizer = torch.optim.SGD(tensors.values(), 0.02)
        for _ in range(30):
            optimizer.zero_grad()
            loss(x, None, generator).backward()
            optimizer.step()
    assert all(distance(name) < before[name] for name in "ab")


def test_a_fixed_batch_size_is_respected(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path, dynamic=False)
    sizes: set[int] = set()
    made.smaller.module.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    found = made.distill(epochs=2)
    assert found.after > found.before
    assert sizes == {2}


def test_features_are_the_inputs_of_the_last_layers(tmp_path: Path) -> None:
    made = case_of(grouped("residual"), tmp_path)
    (found,) = distill.features(made.kept)
    assert "flatten" in found.name


def test_the_ends_of_residual_branches_are_compared_as_well(tmp_path: Path) -> None:
    made = case_of(grouped("residual"), tmp_path)
    graph = made.kept.labelled.graph
    added = [node for node in graph.nodes if str(node.target) == "aten.add.Tensor"]
    assert added
    found = distill.sums(made.kept)
    assert len(found) == len(added)
    assert all(end is each or end in each.users for end, each in zip(found, added, strict=True))
