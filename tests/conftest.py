"""What all tests share: a torchvision without its compiled ops, how many nets are drawn, a cache of scores."""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, settings
from torch import Tensor

from zoo_blocks import NETS

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared among processes
    torch.set_num_threads(1)

# no test reads or writes the scores of whoever runs them
os.environ["PFP_CACHE"] = tempfile.mkdtemp(prefix="pfp-cache.")


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

if _torchvision_lacks_its_ops():
    # torchvision registers shapes for some of these while it is imported. They live as long as the library object.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for schema, kernel in _OPS.items():
        LIBRARY.define(schema)
        if kernel is not None:
            LIBRARY.impl(schema.partition("(")[0], kernel, "CPU")
    sizes = lambda x, w, offset, *rest: x.new_empty(x.shape[0], w.shape[0], *offset.shape[2:])  # noqa: E731
    LIBRARY.impl("deform_conv2d", sizes, "Meta")
    for module in ("extension", "ops.boxes", "ops.deform_conv", "ops.roi_align"):
        importlib.import_module(f"torchvision.{module}")._has_ops = lambda: True

# Random networks: the same few in every run of the tests, or thousands of new ones when asked for.
_DRAWN = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("few", max_examples=40, **_DRAWN)
settings.register_profile("thousands", max_examples=3000, **{**_DRAWN, "derandomize": False}, print_blob=True)
settings.load_profile("few")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """No test depends on the tests before it; networks are drawn with seed 0."""
    torch.manual_seed(1)


@pytest.fixture(scope="session", autouse=True)
def _exporter_builds_its_table_once() -> Iterator[None]:
    """Torch's ONNX exporter builds its table of ops anew for every file: a third of the time of a tiny network."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker runs all tests of a network of the zoo, so that one traces it (`--dist loadgroup`)."""
    for item in items:
        params = getattr(item, "callspec", None)
        named = [value for key, value in params.params.items() if key in ("name", "net")] if params else []
        if named and isinstance(named[0], str) and named[0] in NETS:
            item.add_marker(pytest.mark.xdist_group(named[0]))
