"""Stand-ins for torchvision's compiled ops, where its build does not fit torch's: enough for the nets of the tests."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
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


def _deform_conv2d(x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *rest: Any) -> Tensor:
    """One group of offsets, no mask: each position of the kernel samples the map where its offset says."""
    stride, padding, dilation = rest[0:2], rest[2:4], rest[4:6]
    n, _, height, width = x.shape
    rows, columns = offset.shape[2:]
    made = bias.view(1, -1, 1, 1)
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            moved = offset.view(n, -1, 2, rows, columns)[:, i * weight.shape[3] + j]
            y = (torch.arange(rows) * stride[0] - padding[0] + i * dilation[0]).to(x)[:, None] + moved[:, 0]
            z = (torch.arange(columns) * stride[1] - padding[1] + j * dilation[1]).to(x) + moved[:, 1]
            places = torch.stack([2 * z / (width - 1) - 1, 2 * y / (height - 1) - 1], 3)
            seen = F.grid_sample(x, places, align_corners=True)
            made = made + torch.einsum("nchw,oc->nohw", seen, weight[:, :, i, j])
    return made


def _deform_conv2d_sizes(x: Tensor, weight: Tensor, offset: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0], *offset.shape[2:])


#: What torchvision calls of its compiled ops in the networks of the tests.
_OPS = {
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor": _nms,
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor": None,
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor": _roi_align,
    "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, "
    "SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, "
    "SymInt offset_groups, bool use_mask) -> Tensor": _deform_conv2d,
}


def define() -> torch.library.Library | None:
    """Register the ops that torchvision lacks; they live as long as the library that is returned."""
    if not _torchvision_lacks_its_ops():
        return None
    # torchvision registers shapes for some of these while it is imported
    library = torch.library.Library("torchvision", "DEF")
    for schema, kernel in _OPS.items():
        library.define(schema)
        if kernel is not None:
            library.impl(schema.partition("(")[0], kernel, "CPU")
    library.impl("deform_conv2d", _deform_conv2d_sizes, "Meta")
    for module in ("extension", "ops.boxes", "ops.deform_conv", "ops.roi_align"):
        importlib.import_module(f"torchvision.{module}")._has_ops = lambda: True
    return library
