"""Spread: the scores of a refitted network vary as much as the original's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pfpcli.graph.graph import Graph
from pfpcli.recovery.refit import Refit
from pfpcli.recovery.spread import MOST, kept_spread, score_channels
from refits import COUNT, dropped, grouped, recovered
from zoo import conv

CPU = torch.device("cpu")


class Detector(nn.Module):
    """Four numbers and a score for each cell, of one convolution; and a trunk that they read."""

    def __init__(self, *, is_joined: bool) -> None:
        super().__init__()
        self.trunk = conv(3, 12)
        self.both = nn.Conv2d(12, 6, 1) if is_joined else None
        self.boxes, self.scores = nn.Conv2d(12, 4, 1), nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.trunk(x)
        boxes, scores = self.both(x).split((4, 2), 1) if self.both else (self.boxes(x), self.scores(x))
        return boxes.flatten(2), scores.flatten(2).sigmoid()


def found(module: nn.Module) -> dict[str, list[bool]]:
    return {name: each.tolist() for name, each in score_channels(whole(module), CPU).items()}


def whole(module: nn.Module) -> Graph:
    return grouped(module, 3, 8, 8).labelled.graph


def test_the_channels_that_score_are_found_and_those_of_boxes_are_none() -> None:
    assert list(found(Detector(is_joined=False)).values()) == [[True, True]]
    with torch.no_grad():  # as a run computes
        assert list(found(Detector(is_joined=True)).values()) == [[False] * 4 + [True, True]]


@pytest.mark.parametrize("last", [nn.Identity(), nn.Softmax(1), nn.Tanh()])
def test_classes_and_numbers_have_no_threshold(last: nn.Module) -> None:
    assert found(nn.Sequential(conv(3, 8), nn.Flatten(), nn.Linear(512, 5), last)) == {}


def test_a_layer_that_another_layer_reads_is_no_score() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            gate: Tensor = self.gate(x)
            return (gate + self.last(gate)).sigmoid()

    ((name, channels),) = found(Gated()).items()
    assert channels == [True] * 4
    assert name.endswith("_1")  # the second convolution


def test_scores_without_a_derivative_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise RuntimeError("derivative for aten::bucketize is not implemented")

    monkeypatch.setattr(torch.autograd, "grad", failing)
    assert found(Detector(is_joined=False)) == {}


@pytest.mark.parametrize(("lost", "expected"), [(0.3, "kept"), (3.0, "limited")])
def test_a_score_has_the_mean_and_the_spread_of_the_original_up_to_a_limit(lost: float, expected: str) -> None:
    torch.manual_seed(0)
    told, hidden = torch.randn(2, 1, 4000, 1)
    y, x = told + lost * hidden + 2, torch.cat([told, torch.ones_like(told)], 2)
    root = (0.5 + torch.rand(1, 4000, 1)).sqrt()
    solution = torch.linalg.lstsq(root * x, root * y).solution.double()
    stretched = kept_spread(
        solution, [(root[:, i::2], x[:, i::2], y[:, i::2]) for i in range(2)], torch.ones(1, 1, 1) > 0
    )
    z, count = (x.double() @ stretched), root.double().square()
    mean = [(count * each).sum() / count.sum() for each in (y, z)]
    spread = [((count * (each - m).square()).sum() / count.sum()).sqrt() for each, m in zip((y, z), mean, strict=True)]
    torch.testing.assert_close(mean[1], mean[0].double())
    if expected == "kept":
        torch.testing.assert_close(spread[1], spread[0].double())
    else:
        torch.testing.assert_close(stretched[0, 0], MOST * solution[0, 0])


def test_channels_that_do_not_score_keep_their_solution() -> None:
    torch.manual_seed(0)
    x, y, solution = torch.randn(1, 50, 4), torch.randn(1, 50, 2), torch.randn(1, 4, 2, dtype=torch.float64)
    stretched = kept_spread(solution, [(torch.ones(1, 1, 1), x, y)], torch.tensor([[[False, True]]]))
    assert torch.equal(stretched[..., 0], solution[..., 0])
    assert not torch.equal(stretched[..., 1], solution[..., 1])


def test_a_constant_score_is_not_stretched() -> None:
    x = torch.ones(1, 50, 1)
    stretched = kept_spread(torch.ones(1, 1, 1).double(), [(torch.ones(1, 1, 1), x, x)], torch.ones(1, 1, 1) > 0)
    torch.testing.assert_close(stretched, torch.ones(1, 1, 1).double())


def test_a_refitted_detector_decides_for_as_many_objects_as_before() -> None:
    torch.manual_seed(0)
    groups = grouped(Detector(is_joined=True), 3, 8, 8)
    graph, images = groups.labelled.graph, torch.randn(COUNT, 3, 8, 8)
    above = {}
    for name, scores in (("least squares", None), ("spread", score_channels(graph, CPU))):
        kept, smaller = dropped(groups, *range(8))
        recovered(kept, smaller, images, lambda pair, scores=scores: Refit(pair, scores=scores))
        with torch.no_grad():
            before, after = graph.module(images)[1], smaller.module(images)[1]
        sure = before.quantile(0.95)
        above[name] = float((after > sure).sum() / (before > sure).sum())
    assert above["least squares"] < 0.8 * above["spread"]
    assert 0.8 < above["spread"] < 1.25
