"""A trial tells a plan that the network survives from one that it does not."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distilled import case, undecided
from pfpcli.channels.groups import group
from pfpcli.cutting.cut import Cut, cut
from pfpcli.outputs import known_outputs
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.losses import distance, relative_distance
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import Planner
from pfpcli.recovery import trial
from pfpcli.recovery.trial import Trials, output_distance
from pfpcli.scoring.scores import Scores

CPU = torch.device("cpu")


def test_a_smaller_network_loses_more(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path)
    groups = group(made.kept.labelled)
    found = Scores(np.random.default_rng(0).random(len(groups.root)))
    plans = [Planner(groups, found, Budget(keep)).by("uniform") for keep in (0.9, 0.5, 0.2)]
    trials = Trials([], made.division, CPU)
    losses = [trials.loss(plan) for plan in plans]
    assert 0 < losses[0] < losses[1] < losses[2]


def test_a_network_that_was_tried_is_freed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, networks = case(undecided(), tmp_path), []

    def watched(*args: Any) -> Cut:
        found = cut(*args)
        networks.append(weakref.ref(found.graph.module))
        return found

    monkeypatch.setattr(trial, "cut", watched)
    groups = group(made.kept.labelled)
    planned = Planner(groups, Scores(np.ones(len(groups.root))), Budget(0.5)).by("uniform")
    Trials([], made.division, CPU).loss(planned)
    assert [each() for each in networks] == [None]


def test_a_network_is_at_no_distance_from_itself(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path)
    whole = made.whole
    assert output_distance(whole, whole, made.division.checking(), CPU) == 0


def test_outputs_of_the_original_are_computed_once_as_far_as_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case(undecided(), tmp_path)
    whole, passes = made.whole, []
    whole.module.register_forward_hook(lambda *_: passes.append(1))
    for held, expected in ((0, 2), (known_outputs.HELD, 1)):
        monkeypatch.setattr(known_outputs, "HELD", held)
        known = KnownOutputs()
        batches = len([*made.division.checking()])
        passes.clear()
        distances = [output_distance(whole, made.smaller, made.division.checking(), CPU, known) for _ in range(2)]
        assert len(passes) == expected * batches
        assert distances[0] == distances[1] > 0


def test_a_constant_in_the_place_of_an_output_is_at_distance_one_and_noise_is_farther() -> None:
    whole = torch.randn(64, 10, generator=torch.Generator().manual_seed(0))
    constant = whole.mean().expand_as(whole)
    assert abs(relative_distance(distance([constant], [whole]).numpy()) - 1) < 1e-6
    assert relative_distance(distance([10 * whole], [whole]).numpy()) > 10
