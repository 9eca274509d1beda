"""Rules of ops that change the height and width of images: resizing, padding, sampling, blocks of pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.calls import bind
from pfpcli.onnx_io.ops.call import Call, NotRead, axes_of
from pfpcli.onnx_io.ops.tables import NodeEdit, Result, register, rewriter

#: Coordinate in the result, size of the result, size of the input, scale -> coordinate in the input.
_COORDINATES: dict[str, Callable[[Tensor, Any, Any, Any], Tensor]] = {
    "half_pixel": lambda i, new, old, scale: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, new, old, scale: (i + 0.5) / scale - 0.5 if new > 1 else 0 * i,
    "half_pixel_symmetric": lambda i, new, old, scale: (i + 0.5) / scale - 0.5 + (old - new / scale) / 2,
    "align_corners": lambda i, new, old, scale: i * (old - 1) / (old * scale - 1) if new > 1 else 0 * i,
    "asymmetric": lambda i, new, old, scale: i / scale,
}
#: Coordinate in the input -> the nearest index.
_ROUNDED: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
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
    unread = call.attribute("antialias", 0) or call.attribute("exclude_outside", 0)
    if way not in _COORDINATES or not stretched or unread:
        raise NotRead(", ".join(f"{name}={value}" for name, value in call.attributes.items()))
    sides = _sides(call, modern)
    if (kind := _torch_mode(call, sides, mode, way, rounding)) is not None:
        corners = None if kind == "nearest" else way == "align_corners"
        sizes = [sides[axis][0] if axis in sides else x.shape[axis] for axis in range(2, x.dim())]
        return F.interpolate(x, sizes, mode=kind, align_corners=corners)
    for axis, (new, scale) in sides.items():
        index = torch.arange(new, dtype=torch.float32, device=x.device)
        coordinates = _COORDINATES[way](index, new, x.shape[axis], scale)
        if mode == "nearest":
            x = _picked(x, axis, _ROUNDED[rounding](coordinates))
        elif mode == "cubic":
            x = _blended(x, axis, coordinates, _cubic(call.attribute("cubic_coeff_a", -0.75)))
        else:
            x = _blended(x, axis, coordinates, _linear)
    return x


@rewriter("Resize")
def _rewrite_sizes(edit: NodeEdit) -> None:
    sizes, made = edit.constant(3), edit.calls[-1].meta["val"].shape
    if sizes and len(sizes) == len(made) and sizes[1] != made[1]:
        edit.set_input(3, [sizes[0], made[1], *sizes[2:]])


def _sides(call: Call, modern: bool) -> dict[int, tuple[Any, Any]]:
    """Return the axes that change size: axis -> (new size, scale)."""
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


def _torch_mode(call: Call, sides: dict[int, tuple[Any, Any]], mode: str, way: str, rounding: str) -> str | None:
    """Return the mode of `F.interpolate` that computes the same, None if no mode does."""
    x, coefficient = call.tensor(0), call.attribute("cubic_coeff_a", -0.75)
    if any(axis < 2 for axis in sides) or x.dim() not in (3, 4, 5):
        return None
    whole = all(isinstance(scale, float) and scale.is_integer() for _, scale in sides.values())
    if mode == "nearest":
        pixels = way in ("half_pixel", "pytorch_half_pixel") and rounding.startswith("round")
        same = (way == "asymmetric" and rounding == "floor") or pixels
        return "nearest" if whole and same else None
    exact = all(new / x.shape[axis] == scale for axis, (new, scale) in sides.items())
    # for a new size of 1, some libraries take the first element and others the middle
    single = any(new == 1 for new, _ in sides.values())
    if not exact or single or way not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    if mode == "cubic":
        return "bicubic" if x.dim() == 4 and coefficient == -0.75 else None
    return {3: "linear", 4: "bilinear", 5: "trilinear"}[x.dim()]


#: The fraction of a coordinate -> (offset of a neighbour, its weight) for each neighbour.
_Weights = Callable[[Tensor], list[tuple[int, Tensor]]]


def _picked(x: Tensor, axis: int, coordinates: Tensor) -> Tensor:
    return x.index_select(axis, coordinates.long().clamp(0, x.shape[axis] - 1))


def _blended(x: Tensor, axis: int, coordinates: Tensor, weights: _Weights) -> Tensor:
    """Interpolate along an axis.

    Args:
        x: float[...].
        axis: the axis.
        coordinates: float[new size], coordinates in the input.
        weights: the weights of the neighbours.
    """
    below = coordinates.floor()
    part = (coordinates - below).view([-1 if i == axis else 1 for i in range(x.dim())]).to(x.dtype)
    found = [_picked(x, axis, below + step) * weight for step, weight in weights(part)]
    return torch.stack(found).sum(0)


def _linear(part: Tensor) -> list[tuple[int, Tensor]]:
    return [(0, 1 - part), (1, part)]


def _cubic(a: float) -> _Weights:
    """Return the weights of Keys's cubic kernel (Keys 1981) with the coefficient a."""

    def near(s: Tensor) -> Tensor:
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: Tensor) -> Tensor:
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    return lambda part: [(-1, far(part + 1)), (0, near(part)), (1, near(1 - part)), (2, far(2 - part))]


@register("Pad")
def _pad(call: Call) -> Result:
    x, pads = call.tensor(0), call.whole(1, "pads" if "pads" in call.attributes else "paddings") or []
    mode, value = call.attribute("mode", "constant"), (call.numbers(2) or [call.attribute("value", 0.0)])[0]
    axes = axes_of(call.whole(3), x.dim())
    ends = dict(zip(axes, zip(pads[: len(axes)], pads[len(axes) :], strict=True), strict=True))
    around = [n for axis in reversed(range(x.dim())) for n in ends.get(axis, (0, 0))]
    if mode == "constant":
        return F.pad(x, around, value=value)
    while around and around[-2:] == [0, 0]:
        around = around[:-2]
    return F.pad(x, around, {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


@rewriter("Pad")
def _rewrite_pads(edit: NodeEdit) -> None:
    around, rank = list(bind(edit.call("pad"))["pad"]), edit.calls[-1].meta["val"].dim()
    around += [0] * (2 * rank - len(around))
    pairs = list(zip(around[::2], around[1::2], strict=True))[::-1]
    axes = edit.constant(3)
    pairs = pairs if axes is None else [pairs[axis] for axis in axes_of(axes, rank)]
    edit.set_numbers(1, "pads", [low for low, _ in pairs] + [high for _, high in pairs])


@register("DepthToSpace")
def _depth_to_space(call: Call) -> Result:
    x, block = call.tensor(0), call.attribute("blocksize")
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


@register("SpaceToDepth")
def _space_to_depth(call: Call) -> Result:
    x, block = call.tensor(0), call.attribute("blocksize")
    n, c, h, w = x.shape
    if call.attribute("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    x = x.reshape(n, c, h // block, block, w // block, block).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(n, c * block**2, h // block, w // block)


@register("GridSample")
def _grid_sample(call: Call) -> Result:
    mode = call.attribute("mode", "linear")
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
    corners = bool(call.attribute("align_corners", 0))
    return F.grid_sample(call.tensor(0), call.tensor(1), mode, call.attribute("padding_mode", "zeros"), corners)
