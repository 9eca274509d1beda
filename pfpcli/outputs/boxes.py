"""Boxes: which of them are sure and do not overlap, and which boxes of two networks are the same.

Only decoded boxes can be compared: corners (x1, y1, x2, y2) or a centre with a size. Overlapping boxes are removed by
onnxruntime's NonMaxSuppression.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor

#: The original is sure of a box from this score on, and boxes are the same from this overlap on.
SURE, SAME = 0.5, 0.5
#: The share of the boxes that must have the form of corners, or of a centre and a size.
FORM = 0.99
#: The most boxes of an image.
_MOST = 300
#: Decoded boxes of all places span this many times the size of one.
_SPREAD = 3
#: The centres of decoded boxes go with the places of their map: the correlation is at least this.
_ALONG = 0.9


def kept(boxes: Tensor, scores: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
    """Return the boxes of an image that are sure and do not overlap.

    Args:
        boxes: float[A, 4].
        scores: float[A, classes].

    Returns:
        The boxes as corners float32[M, 4], their classes int64[M], and whether they have the form of decoded boxes.
    """
    best, classes = scores.float().max(1)
    sure = (best >= SURE).nonzero().flatten()
    if not len(sure):
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64), True
    chosen, best, classes = boxes[sure].float(), best[sure], classes[sure]
    corners = bool((chosen[:, 2:] > chosen[:, :2]).float().mean() >= FORM)
    sized = bool((chosen[:, 2:] > 0).float().mean() >= FORM)
    if not corners and sized:
        centre, half = chosen[:, :2], chosen[:, 2:] / 2
        chosen = torch.cat([centre - half, centre + half], 1)
    found = np.ascontiguousarray(chosen.numpy()[:, [1, 0, 3, 2]])
    picked = _suppression().run(None, {"boxes": found[None], "scores": best.numpy()[None, None]})[0][:, 2]
    return chosen.numpy()[picked], classes.numpy()[picked], corners or sized


def are_spread(boxes: Tensor) -> bool:
    """Whether boxes float[A, 4] lie at different places of the image; offsets from anchors lie around 0."""
    centre = boxes[:, :2].float()
    size = (boxes[:, 2:] - boxes[:, :2]).abs() if (boxes[:, 2:] > boxes[:, :2]).all() else boxes[:, 2:].abs()
    span: Tensor = centre.amax(0) - centre.amin(0)
    return bool((span > _SPREAD * size.float().median(0).values).all())


def are_along(boxes: Tensor) -> bool:
    """Whether the boxes of a map lie where their places are: float[..., H, W, 4]; offsets from anchors do not."""
    height, width = boxes.shape[-3:-1]
    if min(height, width) < 2:
        return False
    places = torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy")
    pairs = (
        torch.stack([boxes[..., i].flatten().double(), place.expand(boxes.shape[:-1]).flatten().double()])
        for i, place in enumerate(places)
    )
    return all(float(torch.corrcoef(pair)[0, 1]) >= _ALONG for pair in pairs)


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


def matched(first: tuple[Any, ...], second: tuple[Any, ...]) -> int:
    """Return the number of boxes of the first that have one of the second, of the same class, each used once."""
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
