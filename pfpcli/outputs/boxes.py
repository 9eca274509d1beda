"""Boxes found again: the boxes that the original is sure of, and which of them another network finds as well.

Boxes and scores of the same places are read together. Only decoded boxes can be compared: corners (x1, y1, x2, y2) or
a centre with a size. Overlapping boxes are removed by onnxruntime's NonMaxSuppression.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.kind import Counts, Judged

#: The original is sure of a box from this score on, and boxes are the same from this overlap on.
SURE, SAME = 0.5, 0.5
#: The most boxes of an image, and the fewest boxes of all images about which something is said.
_MOST, _FEWEST = 300, 10
#: Kinds of roles that may score boxes.
_SCORES = ("logits", "probabilities", "sigmoid")
#: The share of the boxes that must have the form of corners, or of a centre and a size.
_FORM = 0.99
#: Decoded boxes of all places span this many times the size of one.
_SPREAD = 3


class BoxTally(Counts):
    """Counts the boxes that are found again.

    Args:
        boxes, scores: the roles of the two outputs.
    """

    def __init__(self, boxes: Role, scores: Role) -> None:
        super().__init__()
        self.members = (boxes, scores)
        self._background: int | None = None

    def add(self, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]) -> None:
        """Add a batch: boxes and scores of the original, and of the other network."""
        whole, now = ([_rows(x, of) for x, of in zip(each, before, strict=True)] for each in (before, after))
        scores = [self._scores(x[1]) for x in (whole, now)]
        for i in range(len(whole[0])):
            first = _kept(whole[0][i], scores[0][i])
            self.count("seen", len(first[1]))
            self.count("decoded", (first[2] and _is_spread(whole[0][i])) * len(first[1]))
            second = _kept(now[0][i], scores[1][i])
            found = _matched(first, second)
            self.count("found", found)
            self.count("more", len(second[1]) - found)

    def _scores(self, x: Tensor) -> Tensor:
        """The score of each class at each place, without the background: float[N, A, classes]."""
        role = self.members[1]
        if role.kind == "sigmoid":
            return x if x.min() >= 0 and x.max() <= 1 else x.sigmoid()
        probabilities = x if role.kind == "probabilities" else x.softmax(-1)
        if self._background is None:  # the class of most places of the original, which is asked first
            self._background = int(probabilities.argmax(-1).flatten().mode().values)
        keep = [i for i in range(x.shape[-1]) if i != self._background]
        return probabilities[..., keep]

    def judged(self) -> Judged | None:
        """Return the share of the original's boxes that is found again; None where there is too little to say."""
        seen = self.sums.get("seen", 0.0)
        if seen < _FEWEST or self.sums["decoded"] < _FORM * seen:
            return None
        found, more = self.sums["found"], self.sums["more"]
        meaning = f"boxes of the original (score ≥ {SURE:g}) found again (IoU ≥ {SAME:g})"
        return Judged("boxes", meaning, 1.0, found / seen, {"boxes": seen, "further boxes": more}, 0.0)


def _rows(x: Tensor, of: Tensor) -> Tensor:
    """Values of each place: float[N, A, numbers]; the places are the longer dimension of the original's output."""
    return x.transpose(1, 2) if of.shape[1] < of.shape[2] else x


def _kept(boxes: Tensor, scores: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
    """The boxes that are sure and do not overlap: float32[M, 4] as corners, their classes int64[M], whether decoded."""
    best, classes = scores.float().max(1)
    sure = (best >= SURE).nonzero().flatten()
    if not len(sure):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), True
    chosen, best, classes = boxes[sure].float(), best[sure], classes[sure]
    corners = bool((chosen[:, 2:] > chosen[:, :2]).float().mean() >= _FORM)
    sized = bool((chosen[:, 2:] > 0).float().mean() >= _FORM)
    if not corners and sized:
        centre, half = chosen[:, :2], chosen[:, 2:] / 2
        chosen = torch.cat([centre - half, centre + half], 1)
    found = np.ascontiguousarray(chosen.numpy()[:, [1, 0, 3, 2]])
    picked = _suppression().run(None, {"boxes": found[None], "scores": best.numpy()[None, None]})[0][:, 2]
    return chosen.numpy()[picked], classes.numpy()[picked], corners or sized


def _is_spread(boxes: Tensor) -> bool:
    """Whether the boxes lie at different places of the image; offsets from anchors lie around 0."""
    centre = boxes[:, :2].float()
    size = (boxes[:, 2:] - boxes[:, :2]).abs() if (boxes[:, 2:] > boxes[:, :2]).all() else boxes[:, 2:].abs()
    span: Tensor = centre.amax(0) - centre.amin(0)
    return bool((span > _SPREAD * size.float().median(0).values).all())


@cache
def _suppression() -> Any:
    """A session of onnxruntime with one NonMaxSuppression."""
    import onnxruntime

    limits = {"most": np.array([_MOST]), "same": np.array([SAME], np.float32)}
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "same"], ["picked"])],
        "suppression",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores")],
        [helper.make_tensor_value_info("picked", TensorProto.INT64, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in limits.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _matched(first: tuple[Any, ...], second: tuple[Any, ...]) -> int:
    """The number of boxes of the first that have one of the second, of the same class, each used once."""
    (a, classes, _), (b, others, _) = first, second
    if not len(a) or not len(b):
        return 0
    overlap = _iou(a, b) * (classes[:, None] == others[None])
    found = 0
    for i in np.argsort(-overlap.max(1)):
        j = int(overlap[i].argmax())
        if overlap[i, j] >= SAME:
            found += 1
            overlap[:, j] = 0
    return found


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of boxes as corners: float32[M, K]."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    inner = np.clip(high - low, 0, None).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).prod(-1) for x in (a, b))
    found: NDArray[np.float32] = inner / np.maximum(area_a[:, None] + area_b[None] - inner, 1e-12)
    return found


def are_scores(kind: str, shape: Sequence[int], boxes: Sequence[int]) -> bool:
    """Whether an output has a score for each of the boxes: scores of the same places, in the same dimension.

    Args:
        kind: of its role.
        shape: of the output, N×A×K or N×K×A.
        boxes: the shape of the boxes, N×A×4 or N×4×A.
    """
    if kind not in _SCORES or not len(shape) == len(boxes) == 3:
        return False
    return any(boxes[3 - dim] == 4 and shape[dim] == boxes[dim] > 1 for dim in (1, 2))


def pairs(roles: Sequence[Role], shapes: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return (number of the boxes, number of their scores) among the roles, the first scores of each boxes."""
    found = []
    for i, role in enumerate(roles):
        others = (j for j, other in enumerate(roles) if are_scores(other.kind, shapes[j], shapes[i]))
        scores = next(others, None) if role.kind == "boxes" else None
        if scores is not None:
            found.append((i, scores))
    return found
