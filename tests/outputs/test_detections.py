"""Boxes and places of a detector are found again by another network, whatever the layout of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from pfpcli.graph.graph import Graph
from pfpcli.graph.role import Anchors, Role
from pfpcli.graph.trace import trace
from pfpcli.outputs import evidence
from pfpcli.outputs.detections import DetectionTally
from pfpcli.outputs.heads import detectors
from pfpcli.outputs.kinds.kind import Judged
from pfpcli.outputs.quality import Tallies
from pfpcli.outputs.roles import Seen, real, select, tell

#: Height and width of a map of 100 places.
SIDE = 10


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def role(number: int, kind: str, axis: int | None = None) -> Role:
    return Role(number, f"o{number}", kind, axis, "")


def judged(roles: Sequence[Role], before: Sequence[Tensor], after: Sequence[Tensor]) -> list[Judged]:
    """What the only detector among the outputs comes to."""
    (levels,) = detectors(roles, [tuple(each.shape) for each in before])
    tally = DetectionTally(roles, levels)
    tally.add(before, after)
    tally.gather()
    return [found for _, found in tally.judged()]


def boxes_of_a_grid() -> Tensor:
    """Boxes that do not overlap, row by row: float[1, 100, 4]."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    corner = torch.stack([x, y], -1).reshape(-1, 2).float() * 10
    return torch.cat([corner, corner + 8], 1)[None]


def as_map(rows: Tensor) -> Tensor:
    """Rows N×100×K as a map N×K×10×10."""
    return rows.transpose(1, 2).unflatten(2, (SIDE, SIDE))


def centred(box: Tensor) -> Tensor:
    return torch.cat([(box[..., :2] + box[..., 2:]) / 2, box[..., 2:] - box[..., :2]], -1)


#: Layout -> what makes it of rows of boxes and of scores, and the dimension of the classes.
LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]] = {
    "rows of corners": (lambda x: x, lambda x: x, 2),
    "rows of a centre and a size": (centred, lambda x: x, 2),
    "places last": (lambda x: x.transpose(1, 2), lambda x: x.transpose(1, 2), 1),
    "maps": (as_map, as_map, 1),
    "maps, channels last": (lambda x: as_map(x).permute(0, 2, 3, 1), lambda x: as_map(x).permute(0, 2, 3, 1), 3),
    "maps of anchors": (lambda x: as_map(x)[:, None], lambda x: as_map(x)[:, None], 2),
    "maps of anchors, channels last": (
        lambda x: as_map(x).permute(0, 2, 3, 1)[:, :, :, None],
        lambda x: as_map(x).permute(0, 2, 3, 1)[:, :, :, None],
        4,
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_boxes_are_found_again_by_overlap_class_and_score(layout: str) -> None:
    boxes = boxes_of_a_grid()
    scores = torch.zeros(1, 100, 3)
    scores[..., 0] = 1
    scores[:, :20] = torch.tensor([0.1, 0.9, 0.0])
    moved, weaker = boxes.clone(), scores.clone()
    moved[:, :5] += 7  # no overlap any more
    weaker[:, 5:8] = torch.tensor([0.6, 0.4, 0.0])  # no longer sure
    weaker[:, 8] = torch.tensor([0.1, 0.0, 0.9])  # another class
    form, turned, axis = LAYOUTS[layout]
    roles = [role(0, "boxes"), role(1, "probabilities", axis)]
    (found,) = judged(roles, [form(boxes), turned(scores)], [form(moved), turned(weaker)])
    assert found.metric == "boxes"
    assert found.after == pytest.approx(11 / 20)
    assert found.measures == {"boxes": 20, "further boxes": 6}


def offsets() -> Tensor:
    boxes = 0.1 * draw(1, 100, 4)
    boxes[..., 2:] = boxes[..., 2:].abs() + 1
    return boxes


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if "centre" not in name])
def test_offsets_from_anchors_are_judged_by_their_places_and_their_numbers(layout: str) -> None:
    boxes, scores = offsets(), torch.full((1, 100, 1), 0.1)
    scores[:, :40] = 0.9
    other, weaker = boxes.clone(), scores.clone()
    weaker[:, :10], weaker[:, 50:53] = 0.2, 0.8
    other[:, :40] *= 1.25
    other[:, 40:] += 100  # nothing is there
    form, turned, _ = LAYOUTS[layout]
    places, there = judged([role(0, "boxes"), role(1, "sigmoid")], [form(boxes), turned(scores)],
                           [form(other), turned(weaker)])  # fmt: skip
    assert (places.metric, places.after) == ("places", pytest.approx(30 / 40))
    assert places.measures == {"places": 40, "further places": 3}
    assert there.after == pytest.approx(0.75)


def test_few_sure_places_say_nothing() -> None:
    boxes, scores = offsets(), torch.full((1, 100, 1), 0.1)
    scores[:, :9] = 0.9
    assert judged([role(0, "boxes"), role(1, "sigmoid")], [boxes, scores], [boxes, scores]) == []


def test_a_place_is_sure_by_the_class_and_the_object_together() -> None:
    boxes, classes, objects = offsets(), torch.zeros(1, 100, 3), torch.full((1, 100, 1), 0.01)
    classes[..., 1], objects[:, :20] = 0.8, 0.9  # most places are of no object, and the most frequent class is one
    roles = [role(0, "boxes"), role(1, "probabilities", 2), role(2, "sigmoid")]
    places, _ = judged(roles, [boxes, classes, objects], [boxes, classes, objects])
    assert (places.measures["places"], places.after) == (20, 1)
    weaker = objects.clone()
    weaker[:, :5] = 0.1  # the root of 0.8 · 0.1 is below 0.5
    places, _ = judged(roles, [boxes, classes, objects], [boxes, classes, weaker])
    assert places.after == pytest.approx(15 / 20)


def test_scores_before_a_sigmoid_are_read_as_the_originals_are() -> None:
    boxes, scores = offsets(), torch.full((1, 100, 1), -3.0)
    scores[:, :20] = 3
    unsure = torch.full((1, 100, 1), 0.7)  # all of them yes, and none outside of 0 to 1
    places, _ = judged([role(0, "boxes"), role(1, "sigmoid")], [boxes, scores], [boxes, unsure])
    assert places.measures == {"places": 20, "further places": 80}


def test_levels_count_together_and_two_detectors_do_not() -> None:
    kinds = ("boxes", "sigmoid")
    roles = [role(number, kinds[number % 2]) for number in range(6)]
    levels = [(1, 4, 8, 8), (1, 2, 8, 8), (1, 4, 4, 4), (1, 2, 4, 4), (1, 4, 2, 2), (1, 2, 2, 2)]
    assert [[head.boxes for head in heads] for heads in detectors(roles, levels)] == [[0, 2, 4]]
    twins = [(1, 50, 4), (1, 50, 1), (1, 50, 4), (1, 50, 3)]
    assert [len(heads) for heads in detectors(roles[:4], twins)] == [1, 1]
    sure = [torch.full(shape, 0.9) if i % 2 else draw(*shape) for i, shape in enumerate(levels)]
    lost = [each * 0.1 if i == 3 else each for i, each in enumerate(sure)]
    places, _ = judged(roles, sure, lost)
    assert places.after == pytest.approx((64 + 4) / 84)


class Detector(nn.Module):
    """Maps of a detector, each from a convolution with a stride of 4, and what a test puts behind them."""

    def __init__(self, channels: Sequence[int], end: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.heads = nn.ModuleList(nn.Conv2d(8, each, 1) for each in channels)
        self.end = end

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.body(x)
        return tuple(self.end(i, head(y)) for i, head in enumerate(self.heads))


IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def told(channels: Sequence[int], end: Callable[[int, Tensor], Tensor]) -> tuple[Graph, list[Role]]:
    graph = trace(Detector(channels, end).eval(), (IMAGES,))
    with torch.no_grad():
        seen = Seen(IMAGES, real(graph.module(IMAGES)), None)
    return graph, list(tell(graph, [f"o{i}" for i in range(len(channels))], None, seen))


def with_background(anchors: int, classes: int) -> Tensor:
    """What makes the first class of each anchor likely, and the others not."""
    shift = torch.full((anchors, classes), -3.0)
    shift[:, 0] = 3
    return shift.flatten()[:, None, None]


#: Name -> channels of the maps, what comes behind each, and the roles.
HEADS: dict[str, tuple[Sequence[int], Callable[[int, Tensor], Tensor], list[str]]] = {
    "raw, with a background": ((12, 16), lambda i, x: x if i else x + with_background(4, 3), ["logits", "boxes"]),
    "raw, scores behind": ((16, 12), lambda i, x: x + with_background(4, 3) if i else x, ["boxes", "logits"]),
    "raw, offsets that one number leads": (
        (6, 12), lambda i, x: x + with_background(1, 12) if i else x + with_background(3, 2), ["logits", "boxes"],
    ),
    "two maps of classes": (
        (8, 12), lambda i, x: 30 * x, ["logits", "logits"],
    ),
    "raw, one class and no background": ((3, 12), lambda i, x: x if i else x - 6, ["sigmoid", "boxes"]),
    "distances and a centerness": (
        (5, 4, 1), lambda i, x: x.exp() if i == 1 else x.sigmoid(), ["sigmoid", "boxes", "sigmoid"],
    ),
    "a map and features": ((5, 6), lambda i, x: x if i else x.sigmoid(), ["sigmoid", "regression"]),
    "two maps of numbers": ((8, 12), lambda i, x: x, ["regression", "regression"]),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_maps_of_a_detector_are_told_by_their_places_and_values(name: str) -> None:
    channels, end, kinds = HEADS[name]
    _, roles = told(channels, end)
    assert [each.kind for each in roles] == kinds, [each.why for each in roles]


def test_anchors_share_their_background_and_halves_of_a_map_of_classes_do_not() -> None:
    scores = draw(2, 3, 5, 8, 8)
    scores[:, :, 2] += 9
    assert evidence.have_background(scores, 2)
    other = scores.clone()
    other[:, 1] = other[:, 1].roll(1, 1)  # another class wins for one of the anchors
    assert not evidence.have_background(other, 2)
    assert not evidence.have_background(draw(2, 3, 5, 8, 8), 2)


def test_the_classes_of_each_anchor_exclude_each_other_and_no_others() -> None:
    graph, roles = told((12, 16), HEADS["raw, with a background"][1])
    assert [(each.axis, each.anchors) for each in roles] == [(2, Anchors(1, 4)), (None, Anchors(1, 4))]
    with torch.no_grad():
        outputs = real(graph.module(IMAGES))
    scores, boxes = select(outputs, roles)
    assert (scores.shape, boxes.shape) == ((4, 4, 3, 8, 8), (4, 4, 4, 8, 8))
    torch.testing.assert_close(scores[:, 1, 2], outputs[0][:, 5])
    assert len(detectors(roles, [tuple(scores.shape), tuple(boxes.shape)])) == 1


def test_a_map_as_fine_as_the_image_has_no_boxes() -> None:
    net = nn.Conv2d(3, 6, 1)
    graph = trace(nn.Sequential(net, Halves()).eval(), (IMAGES,))
    with torch.no_grad():
        roles = tell(graph, ["a", "b"], None, Seen(IMAGES, real(graph.module(IMAGES)), None))
    assert [each.kind for each in roles] == ["regression", "sigmoid"]


class Halves(nn.Module):
    """Four numbers and two scores for each pixel."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :4], x[:, 4:].sigmoid()


@pytest.mark.parametrize("kind", ["probabilities", "sigmoid"])
def test_scores_of_places_are_compared_as_numbers_since_most_places_are_background(kind: str) -> None:
    roles = [role(0, "boxes"), role(1, kind, 2 if kind == "probabilities" else None)]
    boxes, scores = offsets(), torch.tensor([0.9, 0.1]).repeat(1, 100, 1)
    other = scores + torch.tensor([0.1, -0.1])
    tallies = Tallies(roles, [(1, 100, 4), (1, 100, 2)])
    tallies.add(1, [boxes, scores], [boxes, other], None)
    rows = {each.name: each for each in tallies.quality("images").outputs}
    assert rows["o1"].metric == "similarity"
    assert rows["o1"].after == pytest.approx(1 - (0.02 / 0.82) ** 0.5, rel=1e-4)
