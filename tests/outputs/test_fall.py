"""How far a quality falls, and the interval that says how sure that is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph
from pfpcli.graph.role import Role
from pfpcli.graph.trace import trace
from pfpcli.outputs.fall import fall, images_needed, interval
from pfpcli.outputs.quality import compare
from pfpcli.records.searched import Fall

IMAGES = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
LABELS = np.arange(90) % 4


def network(kind: str, noise: float = 0.0) -> Graph:
    """A linear network with outputs of a kind, and noise in its weights."""
    torch.manual_seed(0)
    module = nn.Linear(6, 4).eval()
    with torch.no_grad():
        module.weight += noise * torch.randn(4, 6)
    traced = trace(module, (IMAGES[:2],))
    return replace(traced, roles=(Role(0, "y", kind, 1 if kind == "logits" else None, ""),))


def batches(labels: bool) -> list[tuple[Tensor, np.ndarray | None]]:
    return [(IMAGES[i : i + 40], LABELS[i : i + 40] if labels else None) for i in range(0, 90, 40)]


def test_the_interval_of_an_accuracy_is_that_of_the_paired_differences_of_the_images() -> None:
    before, after = network("logits"), network("logits", 0.3)
    quality, found = fall(before, after, batches(True), "images")
    whole, now = (graph.module(IMAGES) for graph in (before, after))
    right = [(y.argmax(1).numpy() == LABELS).astype(float) for y in (whole, now)]
    assert (quality.metric, found.metric, found.unit, found.images) == ("accuracy", "accuracy", "pp", 90)
    assert found.fall == pytest.approx((right[0] - right[1]).mean())
    assert (found.low, found.high) == pytest.approx(interval(right[0] - right[1]))


@pytest.mark.parametrize("kind", ["logits", "sigmoid", "embedding", "regression"])
def test_the_fall_of_every_kind_is_that_of_its_quality_and_lies_in_its_interval(kind: str) -> None:
    before, after = network(kind), network(kind, 0.2)
    expected = compare(before, after, batches(False), "images")
    _, found = fall(before, after, batches(False), "images")
    assert (found.before, found.after) == pytest.approx((expected.before, expected.after))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.fall < found.high


def test_the_jackknife_of_a_ratio_of_sums_spreads_as_resampled_images_do() -> None:
    before, after = network("regression"), network("regression", 0.2)
    _, found = fall(before, after, batches(False), "images")
    whole, now = (graph.module(IMAGES).detach().double() for graph in (before, after))
    squares, errors = whole.square().sum(1).numpy(), (now - whole).square().sum(1).numpy()
    picks = np.random.default_rng(0).integers(0, 90, (2000, 90))
    resampled = np.sqrt(errors[picks].sum(1) / squares[picks].sum(1))
    assert found.high is not None
    assert found.low is not None
    # images are added at each end, so the interval is somewhat wider
    assert 1.9 * resampled.std() < (found.high - found.low) / 2 < 1.9 * resampled.std() + 4 / 90


@pytest.mark.parametrize("images", [30, 100, 1000])
@pytest.mark.parametrize(("worse", "better"), [(0.0, 0.0), (0.01, 0.0), (0.05, 0.02), (0.2, 0.1)])
def test_the_true_fall_lies_in_the_interval_as_often_as_it_says(images: int, worse: float, better: float) -> None:
    draws = np.random.default_rng(0).random((400, images))
    differences = (draws < worse).astype(float) - ((draws >= worse) & (draws < worse + better))
    ends = [interval(each) for each in differences]
    held = [end is not None and end[0] <= worse - better <= end[1] for end in ends]
    assert np.mean(held) >= 0.94


def test_few_images_without_a_difference_promise_little_and_many_promise_much() -> None:
    ends = [interval(np.zeros(images)) for images in (20, 200, 2000)]
    widths = [end[1] for end in ends if end is not None]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.1 > widths[1] > 0.01 > widths[2]


def test_a_fall_in_decibels_needs_targets() -> None:
    with pytest.raises(InputError, match="no output has target pictures"):
        fall(network("regression"), network("regression"), batches(False), "images", decibels=True)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0.02, 900), (0.04, 100), (0.01, None), (0.005, None)],
)
def test_the_number_of_images_that_would_settle_it_grows_as_the_margin_shrinks(most: float, expected: object) -> None:
    found = Fall("accuracy", "pp", 0.9, 0.89, -0.01, 0.04, 100, "images")
    assert images_needed(found, most) == (expected if expected is None else pytest.approx(expected, abs=2))
