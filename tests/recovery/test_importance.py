"""Importance: positions on which the outputs depend count more in a refit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pfpcli.graph.graph import Graph
from pfpcli.recovery import importance
from pfpcli.recovery.importance import Importance
from pfpcli.recovery.refit import Findings, Refit
from refits import COUNT, dropped, grouped, recovered
from zoo import conv


def measured(module: nn.Module, images: Tensor) -> list[Tensor]:
    """The importance of each layer of a network, float[N, P] each."""
    graph = whole(module, images)
    calls = [node for node in graph.nodes if str(node.target) in ("aten.conv2d.default", "aten.linear.default")]
    found = importance.measure(graph, calls, images.split(4)).of
    return [torch.cat(found[call.name]).float() for call in calls if call.name in found]


def whole(module: nn.Module, images: Tensor) -> Graph:
    return grouped(module, *images.shape[1:]).labelled.graph


class LeftHalf(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., :4]


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.round()


def test_each_image_counts_the_same() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 8) * torch.tensor([0.01, 0.1, 1, 2, 5, 10]).view(-1, 1, 1, 1)
    found = measured(nn.Sequential(conv(3, 8), conv(8, 8), nn.Flatten(), nn.Linear(512, 5)), images)
    assert len(found) == 3
    for each in found:
        torch.testing.assert_close(each.mean(1), torch.ones(6), rtol=1e-2, atol=0)


def test_positions_that_the_outputs_do_not_read_count_a_tenth() -> None:
    torch.manual_seed(0)
    (found,) = measured(nn.Sequential(nn.Conv2d(3, 6, 1), LeftHalf()), torch.randn(4, 3, 8, 8))
    maps = found.view(4, 8, 8)
    torch.testing.assert_close(maps[..., 4:], torch.full((4, 8, 4), importance.FLOOR), rtol=1e-2, atol=0)
    assert maps[..., :4].mean() > 1.8


def test_where_the_outputs_do_not_depend_on_a_layer_all_positions_count_the_same() -> None:
    (found,) = measured(nn.Sequential(nn.Conv2d(3, 6, 1), Rounded()), torch.randn(4, 3, 8, 8))
    assert (found == 1).all()


def test_a_network_too_large_for_a_backward_pass_has_no_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MOST", 100)
    assert measured(nn.Conv2d(3, 6, 1), torch.randn(4, 3, 8, 8)) == []


@pytest.mark.parametrize(("error", "said"), [
    (torch.OutOfMemoryError("CUDA out of memory"), "torch ran out of memory in the backward pass"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "torch ran out of memory in the backward pass"),
    (RuntimeError("derivative for aten::bucketize is not implemented"), "torch cannot compute the backward pass"),
])  # fmt: skip
def test_why_there_is_no_importance_is_told(error: RuntimeError, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch.autograd, "grad", failing)
    images = torch.randn(4, 3, 8, 8)
    graph = whole(nn.Conv2d(3, 6, 1), images)
    calls = [node for node in graph.nodes if str(node.target) == "aten.conv2d.default"]
    assert importance.measure(graph, calls, [images]).missing == said


def test_a_refit_leaves_its_errors_where_the_outputs_do_not_look() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 1), LeftHalf())
    groups = grouped(module, 3, 8, 8)
    images = torch.randn(COUNT, 3, 8, 8)
    images[..., 4:] = 3 * images[..., 4:] - 3  # what is lost there wants other weights
    errors = {}
    for name, known in (("alike", Findings(importance=Importance())), ("important", None)):
        kept, smaller = dropped(groups, 0, 1, 2)
        recovered(kept, smaller, images, lambda pair, known=known: Refit(pair, findings=known))
        with torch.no_grad():
            errors[name] = float((kept.labelled.graph.module(images) - smaller.module(images)).norm())
    assert errors["important"] < 0.9 * errors["alike"]
