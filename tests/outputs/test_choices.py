"""Where a file ends in an op that chooses a class, the scores that it chooses by are judged and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from onnx_files import groups_of, write, written
from pfpcli.cutting.cut import cut
from pfpcli.models.load import load
from pfpcli.onnx_io.runtime import run_onnx, session
from pfpcli.outputs.quality import compare
from properties import random_drop

CLASSES = 5


class Chooser(nn.Module):
    """Scores of classes for each pixel, and what a test puts behind them."""

    def __init__(self, end: Callable[[Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, CLASSES, 3, padding=1))
        self.end = end

    def forward(self, x: Tensor) -> object:
        return self.end(self.body(x))


ENDS: dict[str, tuple[Callable[[Tensor], object], int, str]] = {
    "a map of classes": (lambda x: x.argmax(1), 1, "ArgMax"),
    "a map of classes, channels last": (lambda x: x.permute(0, 2, 3, 1).argmax(-1), 3, "ArgMax"),
    "one class": (lambda x: x[:, :, 5, 5].argmax(1), 1, "ArgMax"),
    "the best three": (lambda x: x[:, :, 5, 5].topk(3, 1), 1, "TopK"),
}


@pytest.mark.parametrize("name", ENDS)
def test_the_agreement_of_the_scores_is_that_of_the_classes_in_the_file(name: str, tmp_path: Path) -> None:
    end, axis, op = ENDS[name]
    path = write(Chooser(end).eval(), torch.rand(2, 3, 12, 12), tmp_path / "net.onnx")
    source = load(path)
    groups = groups_of(path, source)
    graph = groups.labelled.graph
    (role,) = graph.roles
    assert (role.kind, role.axis) == ("logits", axis)
    assert role.why.startswith(op)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    images = torch.rand(40, 3, *graph.example[0].shape[2:], generator=torch.Generator().manual_seed(1))
    found = compare(graph, smaller, [(images, None)], "images")
    first, second = (run_onnx(session(each), [images])[-1] for each in (path, after))
    if op == "TopK":
        first, second = (torch.as_tensor(each)[:, 0] for each in (first, second))
    same = float((torch.as_tensor(first) == torch.as_tensor(second)).float().mean())
    assert found.metric == "agreement"
    assert 0 < found.after < 1
    assert found.after == pytest.approx(same, abs=1e-3)


def test_a_topk_that_other_nodes_gather_by_chooses_no_class(tmp_path: Path) -> None:
    def best(x: Tensor) -> Tensor:
        rows = x.flatten(2)
        return rows.gather(2, rows[:, :1].topk(4, 2).indices.expand(-1, CLASSES, -1))

    path = write(Chooser(best).eval(), torch.rand(2, 3, 12, 12), tmp_path / "net.onnx")
    assert all(role.kind != "logits" for role in groups_of(path).labelled.graph.roles)
