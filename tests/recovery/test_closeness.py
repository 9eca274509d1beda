"""Closeness: one number for how close two networks are."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from distilled import Case, case, undecided
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.losses import divergence
from pfpcli.outputs.quality import compare
from pfpcli.outputs.roles import roles_of
from pfpcli.recovery.closeness import closeness


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def test_a_network_is_as_close_to_itself_as_can_be(small: Case) -> None:
    assert closeness(small.whole, small.whole, small.division.checking()) == pytest.approx(1, abs=1e-6)


def test_it_is_the_divergence_of_all_images_however_they_are_divided(small: Case) -> None:
    images = torch.cat([images for images, _ in small.division.checking()])
    with torch.no_grad():
        diverged = divergence([small.smaller.module(images)], [small.whole.module(images)], roles_of(small.whole))
    expected = math.exp(-float(diverged) / len(images))
    assert 0 < expected < 1
    assert closeness(small.whole, small.smaller, [(images, None)]) == pytest.approx(expected, rel=1e-5)


def test_outputs_that_are_not_finite_are_not_close_at_all(small: Case) -> None:
    with torch.no_grad():
        for tensor in small.smaller.module.state_dict().values():
            tensor.fill_(math.nan)
    assert closeness(small.whole, small.smaller, small.division.checking()) == 0


def test_the_original_runs_once_for_all_that_is_compared_with_it_on_the_same_images(small: Case) -> None:
    passes, known, batches = [], KnownOutputs(), [*small.division.checking()]
    expected = closeness(small.whole, small.smaller, batches), compare(small.whole, small.smaller, batches, "")
    small.whole.module.register_forward_hook(lambda *_: passes.append(1))
    for _ in range(2):
        assert closeness(small.whole, small.smaller, batches, known=known) == expected[0]
        assert compare(small.whole, small.smaller, batches, "", known=known) == expected[1]
    assert len(passes) == len(batches)
