"""Heads: outputs that are read together, four numbers for each place and the scores of the same places.

Rows N×A×4 go with scores N×A×K. Maps N×4×H×W go with scores N×K×H×W, and maps N×(A·4)×H×W of A anchors in each cell
with scores N×(A·K)×H×W. The numbers of a place may also be the last dimension of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from math import prod

from torch import Tensor

from pfpcli.graph.role import Anchors, Role
from pfpcli.outputs import evidence

#: Kinds of roles that may score boxes.
_SCORES = ("logits", "probabilities", "sigmoid")
#: The most anchors of a cell.
_ANCHORS = 16
#: A map of boxes has at most this share of the height and width of the image; finer maps are pictures.
_COARSE = 1 / 4


@dataclass(frozen=True)
class Head:
    """Outputs about the same places, by the numbers of their roles.

    Attributes:
        boxes: the four numbers of each place.
        scores: of the same places; class scores come first, then one number for each place (objectness, centerness).
        dim: the dimension of the numbers of a place.
    """

    boxes: int
    scores: tuple[int, ...]
    dim: int


def number_dim(shape: Sequence[int], boxes: Sequence[int]) -> int | None:
    """Return the dimension of the numbers of a place, where two outputs have the same places; else None.

    Args:
        shape: of the output that may score the boxes.
        boxes: the shape of the output that may be boxes.
    """
    rank = len(boxes)
    if len(shape) != rank or rank not in (3, 4, 5):
        return None
    for dim in (2, 1) if rank == 3 else (rank - 3, rank - 1):
        places = [boxes[i] for i in range(1, rank) if i != dim]
        is_same = places == [shape[i] for i in range(1, rank) if i != dim] and prod(places) > 1
        count = boxes[dim] // 4
        is_anchored = rank == 4 and 1 < count <= _ANCHORS and shape[dim] % count == 0
        if is_same and boxes[dim] % 4 == 0 and (count == 1 or is_anchored):
            return dim
    return None


def are_scores(kind: str, shape: Sequence[int], boxes: Sequence[int]) -> bool:
    """Whether an output of such a role has scores for each place of the boxes."""
    return kind in _SCORES and number_dim(shape, boxes) is not None


def detectors(roles: Sequence[Role], shapes: Sequence[Sequence[int]]) -> list[tuple[Head, ...]]:
    """Return the heads among the outputs; those of several levels (strides) together.

    Heads are levels of one detector if they differ in their places alone.
    """
    found: list[tuple[object, list[Head]]] = []
    for i, role in enumerate(roles):
        head = _head(i, roles, shapes) if role.kind == "boxes" else None
        if head is None:
            continue
        likeness = [(roles[j].kind, len(shapes[j]), shapes[j][head.dim]) for j in (i, *head.scores)]
        levels = (
            heads
            for other, heads in found
            if other == likeness and all(_places(each, shapes) != _places(head, shapes) for each in heads)
        )
        known = next(levels, None)
        if known is None:
            found.append((likeness, [head]))
        else:
            known.append(head)
    return [tuple(heads) for _, heads in found]


def _places(head: Head, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(size for dim, size in enumerate(shapes[head.boxes]) if dim not in (0, head.dim))


def _head(boxes: int, roles: Sequence[Role], shapes: Sequence[Sequence[int]]) -> Head | None:
    """The scores of some boxes: the first class scores, and all scores of one number for each place."""
    scores = [j for j, role in enumerate(roles) if j != boxes and are_scores(role.kind, shapes[j], shapes[boxes])]
    if not scores:
        return None
    dim = number_dim(shapes[scores[0]], shapes[boxes])
    assert dim is not None
    scores = [j for j in scores if number_dim(shapes[j], shapes[boxes]) == dim]
    classes = [j for j in scores if shapes[j][dim] > 1][:1]
    return Head(boxes, (*classes, *(j for j in scores if shapes[j][dim] == 1)), dim)


def with_boxes(
    roles: Sequence[Role],
    shapes: Sequence[tuple[int, ...]],
    free: Sequence[bool],
    image: Sequence[int],
    *,
    wanted: bool,
) -> list[Role]:
    """Return the roles with `boxes` for numbers beside scores of the same places.

    Args:
        roles: what is told so far.
        shapes: of the outputs.
        free: whether a role may change, as in `with_raw_scores`.
        image: the shape of the input.
        wanted: whether the user says that the network detects: rows of four numbers are boxes then.
    """
    found = []
    for role, sizes, is_free in zip(roles, shapes, free, strict=True):
        others = [of for other, of in zip(roles, shapes, strict=True) if other is not role and other.kind in _SCORES]
        is_scored = any(_are_beside(of, sizes, image) is not None for of in others)
        if role.kind == "regression" and is_free and (is_scored or (wanted and len(sizes) == 3 and 4 in sizes[1:])):
            role = replace(role, kind="boxes", why="four numbers for each place that has scores")
        found.append(role)
    return found


def _are_beside(shape: Sequence[int], boxes: Sequence[int], image: Sequence[int]) -> int | None:
    """The dimension of the numbers, as `number_dim`; None for maps that are as fine as a picture."""
    dim = number_dim(shape, boxes)
    if dim is None or len(boxes) == 3:
        return dim
    places = sorted(size for i, size in enumerate(boxes) if i not in (0, dim))[-2:]
    return dim if max(places) <= _COARSE * max(image[1:]) else None


def with_raw_scores(
    roles: Sequence[Role],
    shapes: Sequence[tuple[int, ...]],
    free: Sequence[bool],
    image: Sequence[int],
    values: Sequence[Tensor],
) -> list[Role]:
    """Return the roles with scores for maps of a detector that come from a layer, before any softmax or sigmoid.

    The values tell: numbers that decide between the classes of each anchor are logits; numbers that nearly always say
    no are scores before a sigmoid. A map of four numbers for each anchor has to lie beside them.

    Args:
        roles: what is told so far.
        shapes: of the outputs.
        free: whether a role may change; the user names the others, or ops tell them for certain.
        image: the shape of the input.
        values: the outputs on a few images.
    """
    candidates = []
    for i, j in permutations(range(len(roles)), 2):
        dim = _are_beside(shapes[j], shapes[i], image) if len(shapes[i]) == 4 else None
        is_open = all(free[each] and roles[each].kind in ("regression", "logits") for each in (i, j))
        count = 0 if dim is None else shapes[i][dim] // 4
        if dim is None or not is_open or shapes[j][dim] == 4 * count:
            continue
        split = values[j].unflatten(dim, (count, -1))
        guessed = [evidence.sureness(values[each], dim) for each in (i, j) if roles[each].kind == "logits"]
        sure = evidence.sureness(split, dim + 1)
        # classes of the whole map, as told so far, have to be less likely than those of each anchor
        is_surer = sure >= max(guessed, default=0.0) and (count == 1 or evidence.have_background(split, dim + 1))
        if is_surer and evidence.are_class_scores(split, dim + 1):
            candidates.append((sure, i, j, "logits", Anchors(dim, count)))
        elif evidence.are_rare(values[j]) and not guessed:
            candidates.append((0.0, i, j, "sigmoid", Anchors(dim, count)))
    found, scores, boxes = list(roles), set[int](), set[int]()
    # where two maps could each be the scores of the other, the surer one is
    for _, i, j, kind, anchors in sorted(candidates, key=lambda each: -each[0]):
        if i in scores or j in boxes or j in scores:
            continue
        scores.add(j)
        boxes.add(i)
        found[j] = _raw(roles[j], kind, anchors)
        is_split = kind == "logits" and anchors.count > 1
        found[i] = replace(roles[i], kind="regression", axis=None, anchors=anchors if is_split else None)
    return found


def _raw(role: Role, kind: str, anchors: Anchors) -> Role:
    """The role of a map of scores."""
    if kind == "sigmoid":
        return replace(role, kind=kind, axis=None, why="scores before a sigmoid: nearly all of its numbers say no")
    if anchors.count == 1:
        return replace(role, kind=kind, axis=anchors.dim, why="its numbers prefer one class as scores do")
    why = f"the numbers of each of its {anchors.count} anchors prefer one class as scores do"
    return replace(role, kind=kind, axis=anchors.dim + 1, why=why, anchors=anchors)
