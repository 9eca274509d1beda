"""Lets torchvision be imported next to a torch that its compiled ops were not built for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch


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


if _torchvision_lacks_its_ops():
    # torchvision registers shapes for these two while it is imported. They live as long as the library object.
    LIBRARY = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
