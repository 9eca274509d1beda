"""Images of another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.onnx_io.ops.call import Call, Edit, Result, axes_of, narrows, register

#: Place in the result, its size, size before, scale -> place before.
_PLACES: dict[str, Callable[[Tensor, Any, Any, Any], Tensor]] = {
    "half_pixel": lambda i, new, old, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, new, old, scale: (i + 0.5) / scale - 0.5 if new > 1 else 0 * i,
    "half_pixel_symmetric": lambda i, new, old, scale: (i + 0.5) / scale - 0.5 + (old - new / scale) / 2,
    "align_corners": lambda i, new, old, scale: i * (old - 1) / (old * scale - 1) if new > 1 else 0 * i,
    "asymmetric": lambda i, new, old, scale: i / scale,
}
#: Which of two neighbours is the nearest.
_ROUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda place: torch.ceil(place - 0.5),
    "round_prefer_ceil": lambda place: torch.floor(place + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


@register("Resize", "Upsample")
def _resize(call: Call) -> Result:
    x, modern = call.tensor(0), call.op == "Resize" and call.version >= 11
    mode = call.attribute("mode", "nearest")
    way = call.attribute("coordinate_transformation_mode", "half_pixel" if modern else "asymmetric")
    rounding = call.attribute("nearest_mode", "round_prefer_floor" if modern else "floor")
    stretched = call.attribute("keep_aspect_ratio_policy", "stretch") == "stretch"
    if way not in _PLACES or not stretched or call.attribute("antialias", 0) or call.attribute("exclude_outside", 0):
        raise NotImplementedError(", ".join(f"{name}={value}" for name, value in call.attributes.items()))
    sides = _sides(call, modern)
    if (kind := _in_one(call, sides, mode, way, rounding)) is not None:
        corners = None if kind == "nearest" else way == "align_corners"
        sizes = [sides[axis][0] if axis in sides else x.shape[axis] for axis in range(2, x.dim())]
        return F.interpolate(x, sizes, mode=kind, align_corners=corners)
    for axis, (new, scale) in sides.items():
        place = _PLACES[way](torch.arange(new, dtype=torch.float32, device=x.device), new, x.shape[axis], scale)
        if mode == "nearest":
            x = _picked(x, axis, _ROUNDED[rounding](place))
        elif mode == "cubic":
            x = _blended(x, axis, place, _cubic(call.attribute("cubic_coeff_a", -0.75)))
        else:
            x = _blended(x, axis, place, _linear)
    return x


@narrows("Resize")
def _new_sizes(edit: Edit) -> None:
    sizes, made = edit.constant(3), edit.after[-1].meta["val"].shape
    if sizes and len(sizes) == len(made) and sizes[1] != made[1]:
        edit.set_input(3, [sizes[0], made[1], *sizes[2:]])


def _sides(call: Call, modern: bool) -> dict[int, tuple[Any, Any]]:
    """Axis -> (size after, scale), of those that change."""
    x = call.tensor(0)
    axes = axes_of(call.attribute("axes"), x.dim())
    sizes = call.whole(3) if modern else None
    if sizes:
        found = {axis: (size, size / x.shape[axis]) for axis, size in zip(axes, sizes, strict=True)}
    else:
        scales = call.numbers(2 if modern else 1, "scales") or []
        found = {axis: (_scaled(x.shape[axis], scale), scale) for axis, scale in zip(axes, scales, strict=True)}
    return {axis: (size, scale) for axis, (size, scale) in found.items() if not (scale == 1 and size == x.shape[axis])}


def _scaled(size: Any, scale: Any) -> Any:
    return size * int(scale) if isinstance(scale, float) and scale.is_integer() else int(size * scale)


def _in_one(call: Call, sides: dict[int, tuple[Any, Any]], mode: str, way: str, rounding: str) -> str | None:
    """What torch calls it, where it has it as one call."""
    x, coefficient = call.tensor(0), call.attribute("cubic_coeff_a", -0.75)
    if any(axis < 2 for axis in sides) or x.dim() not in (3, 4, 5):
        return None
    whole = all(isinstance(scale, float) and scale.is_integer() for _, scale in sides.values())
    if mode == "nearest":
        pixels = way in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        same = (way == "asymmetric" and rounding == "floor") or pixels
        return "nearest" if whole and same else None
    exact = all(new / x.shape[axis] == scale for axis, (new, scale) in sides.items())
    # a side of one place is the first there was for some, and the middle for others
    single = any(new == 1 for new, _ in sides.values())
    if not exact or single or way not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    if mode == "cubic":
        return "bicubic" if x.dim() == 4 and coefficient == -0.75 else None
    return {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]


def _picked(x: Tensor, axis: int, places: Tensor) -> Tensor:
    return x.index_select(axis, places.long().clamp(0, x.shape[axis] - 1))


def _blended(x: Tensor, axis: int, places: Tensor, weights: Callable[[Tensor], list[tuple[int, Tensor]]]) -> Tensor:
    """The neighbours of places, weighted; weights: of the part of a step -> (which neighbour, its weight)."""
    below = places.floor()
    part = (places - below).view([-1 if i == axis else 1 for i in range(x.dim())]).to(x.dtype)
    found = [_picked(x, axis, below + step) * weight for step, weight in weights(part)]
    return torch.stack(found).sum(0)


def _linear(part: Tensor) -> list[tuple[int, Tensor]]:
    return [(0, 1 - part), (1, part)]


def _cubic(a: float) -> Callable[[Tensor], list[tuple[int, Tensor]]]:
    """Keys's kernel."""

    def near(s: Tensor) -> Tensor:
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: Tensor) -> Tensor:
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return lambda part: [(-1, far(part + 1)), (0, near(part)), (1, near(1 - part)), (2, far(2 - part))]
