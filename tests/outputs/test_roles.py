"""The role of an output is told by the user, by the last ops, by its values, and in doubt it is a regression."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph
from pfpcli.graph.role import Role
from pfpcli.graph.trace import trace
from pfpcli.outputs.asked import TASKS, Asked, parse
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.roles import Seen, real, roles_of, select, tell

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Ends(nn.Module):
    """A convolution, and what a test puts behind it."""

    def __init__(self, end: Callable[[Tensor], object], channels: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end = nn.Conv2d(3, channels, 3, padding=1), end

    def forward(self, x: Tensor) -> object:
        return self.end(self.conv(x))


def _graph(module: nn.Module, images: Tensor) -> Graph:
    return trace(module.eval(), (images,))


def told(
    end: Callable[[Tensor], object], channels: int = 6, asked: Asked | None = None, labels: np.ndarray | None = None
) -> list[Role]:
    """The roles of the outputs behind a convolution, with images."""
    graph = _graph(Ends(end, channels), IMAGES)
    with torch.no_grad():
        outputs = real(graph.module(IMAGES))
    return list(tell(graph, [f"o{i}" for i in range(len(graph.outputs))], asked, Seen(IMAGES, outputs, labels)))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


ENDS: dict[str, tuple[Callable[[Tensor], object], int, str, int | None]] = {
    "softmax": (lambda x: pooled(x).softmax(1), 6, "probabilities", 1),
    "softmax of a map": (lambda x: x.softmax(1), 6, "probabilities", 1),
    "softmax in the last place": (lambda x: x.permute(0, 2, 3, 1).softmax(-1), 6, "probabilities", 3),
    "softmax, then channels last": (lambda x: x.softmax(1).permute(0, 2, 3, 1), 6, "probabilities", 3),
    "softmax, then rows": (lambda x: x.softmax(1).flatten(2).transpose(1, 2), 6, "probabilities", 2),
    "log softmax": (lambda x: pooled(x).log_softmax(1), 6, "logits", 1),
    "sigmoid": (lambda x: x.sigmoid(), 6, "sigmoid", None),
    "sigmoid mask of one channel": (lambda x: x.sigmoid(), 1, "sigmoid", None),
    "tanh in the size of the input": (lambda x: x.tanh(), 3, "image", None),
    "tanh, scaled": (lambda x: (x.tanh() + 1) / 2, 3, "image", None),
    "clip in the size of the input": (lambda x: x.clamp(0, 1), 3, "image", None),
    "sigmoid picture": (lambda x: x.sigmoid(), 3, "image", None),
    "convolution to a picture": (lambda x: x, 3, "image", None),
    "pixel shuffle": (lambda x: nn.functional.pixel_shuffle(x, 2), 12, "image", None),
    "pixel shuffle and a sum": (lambda x: nn.functional.pixel_shuffle(x, 2) + 0.5, 12, "image", None),
    "norm": (lambda x: nn.functional.normalize(pooled(x)), 6, "embedding", None),
    "features": (lambda x: pooled(x.relu()), 6, "regression", None),
    "coordinates": (lambda x: pooled(x), 6, "regression", None),
    "a map of numbers": (lambda x: x, 6, "regression", None),
    "scores that prefer a class": (lambda x: 40 * (pooled(x) - pooled(x).mean(1, keepdim=True)), 6, "regression", None),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_the_last_ops_and_the_values_tell_the_role(name: str) -> None:
    end, channels, kind, axis = ENDS[name]
    (role,) = told(end, channels)
    assert (role.kind, role.axis) == (kind, axis), role.why
    assert role.why


def test_a_trained_classifier_without_a_softmax_gives_scores() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
    with torch.no_grad():  # each class answers to one colour, as after training
        net[1].weight.copy_(torch.randn(4, 768, generator=torch.Generator().manual_seed(1)))
        net[1].bias.zero_()
    graph = _graph(net, IMAGES - 0.5)
    with torch.no_grad():
        seen = Seen(IMAGES - 0.5, real(graph.module(IMAGES - 0.5)), None)
    (role,) = tell(graph, ["y"], None, seen)
    assert (role.kind, role.axis) == ("logits", 1)


def test_class_labels_make_a_row_of_numbers_scores() -> None:
    (role,) = told(pooled, labels=np.array([0, 5, 3, 2]))
    assert (role.kind, role.axis) == ("logits", 1)
    assert "class labels" in role.why


def test_probabilities_are_told_by_their_values_where_no_op_tells() -> None:
    (role,) = told(lambda x: pooled(x).exp() / pooled(x).exp().sum(1, keepdim=True))
    assert (role.kind, role.axis) == ("probabilities", 1)
    assert "sum to 1" in role.why


def test_an_output_that_joins_different_things_has_a_role_for_each() -> None:
    roles = told(lambda x: torch.cat([x[:, :4].flatten(2), x[:, 4:].flatten(2).sigmoid()], 1), 9)
    assert [(role.name, role.kind) for role in roles] == [("o0[0:4]", "boxes"), ("o0[4:9]", "sigmoid")]
    x = torch.arange(2 * 9 * 5).reshape(2, 9, 5).float()
    parts = select([x], roles)
    assert [tuple(part.shape) for part in parts] == [(2, 4, 5), (2, 5, 5)]
    torch.testing.assert_close(torch.cat(parts, 1), x)


def test_levels_that_are_joined_are_one_output() -> None:
    def end(x: Tensor) -> Tensor:
        levels = [x, nn.functional.avg_pool2d(x, 2)]
        return torch.cat([each.flatten(2).transpose(1, 2).softmax(-1) for each in levels], 1)

    (role,) = told(end)
    assert (role.kind, role.axis, role.part) == ("probabilities", 2, None)


def test_four_numbers_beside_scores_of_the_same_places_are_boxes() -> None:
    def end(x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.flatten(2).transpose(1, 2)
        return rows[..., :4], rows[..., 4:].softmax(-1)

    assert [role.kind for role in told(end)] == ["boxes", "probabilities"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_word_comes_first(kind: str) -> None:
    (role,) = told(lambda x: pooled(x).softmax(1), asked=parse([f"o0={kind}"], None))
    assert role.kind == kind
    assert "--output" in role.why


@pytest.mark.parametrize("task", TASKS)
def test_a_task_decides_where_the_ops_do_not(task: str) -> None:
    (role,) = told(lambda x: x, 6, Asked(task))
    assert role.kind == TASKS[task]
    (certain,) = told(lambda x: pooled(x).softmax(1), asked=Asked(task))
    assert certain.kind == "probabilities"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logits", r"--output logits: expected NAME=ROLE"),
        ("y=logit", r"no role is called logit, expected one of"),
        ("y=logits:x", r"the axis is 'x', expected a number"),
    ],
)
def test_a_wrong_word_is_refused_with_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse([text], None)


def test_an_output_that_there_is_not_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InputError, match="no such output, it has o0") as error:
        told(pooled, asked=parse(["p0=logits"], None))
    assert "o0=logits" in error.value.hint
    with pytest.raises(InputError, match="expected two or more classes along its axis"):
        told(pooled, asked=parse(["o0=logits:4"], None))


def test_without_images_the_structure_tells() -> None:
    (role,) = roles_of(_graph(Ends(pooled), IMAGES))
    assert (role.kind, role.axis) == ("logits", 1)


def test_a_map_of_three_classes_is_no_picture() -> None:
    net = nn.Conv2d(3, 3, 1)
    with torch.no_grad():  # each class answers to one colour
        net.weight.copy_(20 * (3 * torch.eye(3) - 1)[..., None, None])
        net.bias.zero_()  # type: ignore[union-attr]
    graph = _graph(net, IMAGES)
    with torch.no_grad():
        seen = Seen(IMAGES, real(graph.module(IMAGES)), None)
    (role,) = tell(graph, ["y"], None, seen)
    assert (role.kind, role.axis) == ("logits", 1)
