"""What layers read of the fitting images is kept from the choice of orders to the curves."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from pfpcli.activations import kept_halves, stored_tensors
from pfpcli.activations.gram_matrices import fitted_gram_batches
from pfpcli.activations.normal_equations import Normal
from pfpcli.activations.task import Batch, Fitting, Task
from pfpcli.scoring.score import score
from tasks import of_zoo, task


def counted(name: str) -> tuple[Task, list[int]]:
    """A task whose passes over its fitting images are counted, some of which have many rows and some few."""
    groups, images = of_zoo(name)
    passes: list[int] = []

    def batches() -> Iterable[Batch]:
        passes.append(1)
        return [(images, None)]

    made = task(groups, [images])
    fitting = Fitting(batches, len(images))
    return Task(made.groups, made.readers, made.batches, made.device, fitting=fitting), passes


def bits(made: Task) -> list[list[torch.Tensor]]:
    """What the layers that read groups have read, with the kept halves as they are."""
    found = []
    for batch in fitted_gram_batches(made, made.groups.prunable):
        for _, grams in batch:
            for gram in grams:
                halves = [[half.gram, half.cross] if isinstance(half, Normal) else [half.x] for half in gram.halves]
                found.append([tensor for half in halves for tensor in half])
    return found


@pytest.mark.parametrize("name", ["residual", "flatten_linear"])
def test_curves_see_what_the_orders_were_chosen_by_without_another_pass(name: str) -> None:
    made, passes = counted(name)
    afresh = bits(made)
    before = len(passes)
    score("auto", made)
    assert len(passes) == 2 * before
    again = bits(made)
    assert len(passes) == 2 * before
    assert all(
        torch.equal(a, b) for mine, other in zip(afresh, again, strict=True) for a, b in zip(mine, other, strict=True)
    )


def test_all_criteria_look_at_the_same_pass_over_the_scoring_images() -> None:
    made, _ = counted("residual")
    passes: list[int] = []

    def batches() -> Iterable[Batch]:
        passes.append(1)
        return made.batches()

    score("auto", Task(made.groups, made.readers, batches, made.device, fitting=made.fitting))
    assert len(passes) == 1


def test_layers_that_nobody_keeps_are_looked_at_again() -> None:
    made, passes = counted("residual")
    assert len(bits(made)) == len(bits(made))
    assert len(passes) > 1
    assert len(passes) % 2 == 0


def test_layers_beyond_the_limit_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_halves, "MOST", 0)
    made, passes = counted("residual")
    score("auto", made)
    before = len(passes)
    bits(made)
    assert len(passes) > before


def test_a_full_disk_keeps_nothing_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stored_tensors.os, "write", full)
    made, passes = counted("residual")
    score("auto", made)
    before = len(passes)
    bits(made)
    assert len(passes) > before
