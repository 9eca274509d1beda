"""Ops that move numbers, and sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pfpcli.graph.calls import bind
from pfpcli.onnx_io.ops.call import Call, Edit, Known, Result, axes_of, axis_of, narrows, register


@register("Shape")
def _shape(call: Call) -> Result:
    sizes = list(call.tensor(0).shape)
    return Known.of(sizes[slice(call.attribute("start", 0), call.attribute("end"))], torch.int64)


@register("Size")
def _size(call: Call) -> Result:
    return Known.of(call.tensor(0).numel(), torch.int64)


@register("Shape", "Size", known=True)
def _shape_known(call: Call) -> Result:
    value = call.known(0).value
    return Known.of(list(value.shape) if call.op == "Shape" else value.size, torch.int64)


@register("Reshape")
def _reshape(call: Call) -> Result:
    x, shape = call.tensor(0), call.whole(1, "shape") or []
    if not call.attribute("allowzero", 0):
        shape = [x.shape[i] if isinstance(size, int) and size == 0 else size for i, size in enumerate(shape)]
    return x.reshape(shape)


@narrows("Reshape", "Expand")
def _new_shape(edit: Edit) -> None:
    call = edit.after[-1]
    given, shape = bind(call), [*call.meta["val"].shape]
    sizes = next(given[name] for name in ("shape", "size") if name in given)
    before = [*call.args[0].meta["val"].shape, *shape][: len(shape)]
    for dim, size in enumerate(sizes):
        if not isinstance(size, int):  # a free one: the one of the input, or what is left
            free = 0 if before[dim] == shape[dim] else -1
            shape[dim] = 1 if edit.node.op_type == "Expand" else free
    was = edit.constant(1)
    if was is not None and len(was) == len(shape):  # said as it was said before
        shape = [old if old in (0, -1) else new for old, new in zip(was, shape, strict=True)]
    if shape.count(-1) > 1:
        raise ValueError("several free sizes")
    edit.set_input(1, shape)


@register("Reshape", known=True)
def _reshape_known(call: Call) -> Result:
    x = call.known(0)
    return Known(x.value.reshape(call.whole(1, "shape") or []), x.dtype)


@register("Flatten")
def _flatten(call: Call) -> Result:
    x = call.tensor(0)
    axis = axis_of(call.attribute("axis", 1), x.dim()) if x.dim() else 0
    if axis == 1:
        return x.flatten(1) if x.dim() > 1 else x.unsqueeze(1)
    rows = 1
    for size in x.shape[:axis]:
        rows = rows * size
    return x.reshape(rows, -1)


@register("Transpose")
def _transpose(call: Call) -> Result:
    x = call.tensor(0)
    return x.permute(call.attribute("perm") or list(range(x.dim()))[::-1])


@register("Transpose", known=True)
def _transpose_known(call: Call) -> Result:
    x = call.known(0)
    return Known(x.value.transpose(call.attribute("perm")), x.dtype)


@register("Squeeze")
def _squeeze(call: Call) -> Result:
    x, axes = call.tensor(0), call.whole(1, "axes")
    return x.squeeze() if axes is None else x.squeeze(tuple(axes_of(axes, x.dim())))


@register("Unsqueeze")
def _unsqueeze(call: Call) -> Result:
    x, axes = call.tensor(0), call.whole(1, "axes") or []
    for axis in sorted(axes_of(axes, x.dim() + len(axes))):
        x = x.unsqueeze(axis)
    return x


@register("Squeeze", "Unsqueeze", known=True)
def _squeeze_known(call: Call) -> Result:
    x, axes = call.known(0), call.whole(1, "axes")
    if call.op == "Squeeze":
        return Known(np.squeeze(x.value, None if axes is None else tuple(axes)), x.dtype)
    return Known(np.expand_dims(x.value, tuple(axes or ())), x.dtype)


@register("Concat")
def _concat(call: Call) -> Result:
    return torch.cat(call.tensors(), call.attribute("axis", 1))


@register("Concat", known=True)
def _concat_known(call: Call) -> Result:
    values = [call.known(i) for i in range(len(call.inputs))]
    joined = np.concatenate([each.value.astype(object) for each in values], call.attribute("axis", 0))
    return Known(joined, values[0].dtype)


@register("Split")
def _split(call: Call) -> Result:
    x, axis = call.tensor(0), call.attribute("axis", 0)
    return tuple(x.split(_parts(call, x.shape[axis]), axis))


@narrows("Split")
def _new_parts(edit: Edit) -> None:
    edit.set_numbers(1, "split", [*bind(edit.call("split_with_sizes"))["split_sizes"]])
    others = [each for each in edit.node.attribute if each.name != "num_outputs"]
    del edit.node.attribute[:]
    edit.node.attribute.extend(others)


@register("Split", known=True)
def _split_known(call: Call) -> Result:
    x, axis = call.known(0), call.attribute("axis", 0)
    ends = np.cumsum(_parts(call, x.value.shape[axis]))[:-1]
    return tuple(Known(part, x.dtype) for part in np.split(x.value, ends, axis))


def _parts(call: Call, size: int) -> list[int]:
    parts = call.whole(1, "split")
    if parts is not None:
        return parts
    count = call.attribute("num_outputs", call.outputs)
    each = -(-size // count)
    return [each] * (count - 1) + [size - each * (count - 1)]


@register("Slice")
def _slice(call: Call) -> Result:
    x = call.tensor(0)
    for axis, start, end, step in _ranges(call, x.dim()):
        if isinstance(step, int) and step < 0:
            size = x.shape[axis]
            start, end = _backwards(start, end, size)
            x = x.flip(axis)
            step = -step
        x = _sliced(x, axis, start, end, step)
    return x


def _sliced(x: torch.Tensor, axis: int, start: Any, end: Any, step: Any) -> torch.Tensor:
    """One call, where an index has one for each dimension in front."""
    found: torch.Tensor = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
    return found


def _backwards(start: int, end: int, size: int) -> tuple[int, int]:
    """Where a range that goes back from start to end starts and ends in what is turned around."""
    start = min(start + size if start < 0 else start, size - 1)
    end = max(-1, end + size if end < 0 else end) if end >= -size else -1
    return size - 1 - start, size - 1 - end


@narrows("Slice")
def _new_ranges(edit: Edit) -> None:
    given = [bind(each) for each in edit.after if "slice" in str(each.target)]
    ranges = [(each["dim"], each["start"] or 0, each["end"], each["step"]) for each in given]
    ranges = [each for each in ranges if each[1:] != (0, _END, 1)]
    if len(given) < len(edit.after):
        raise ValueError("turned around")
    axes, starts, ends, steps = (list(each) for each in zip(*ranges, strict=True))
    for index, (name, numbers) in enumerate({"starts": starts, "ends": ends, "axes": axes, "steps": steps}.items(), 1):
        if name != "steps" or any(step != 1 for step in numbers):
            edit.set_numbers(index, name, numbers)


#: What stands for the end of a dimension.
_END = torch.iinfo(torch.int64).max


@register("Slice", known=True)
def _slice_known(call: Call) -> Result:
    x = call.known(0)
    value = x.value
    for axis, start, end, step in _ranges(call, value.ndim):
        size = value.shape[axis]
        end = None if step < 0 and end < -size else end
        value = value[(slice(None),) * axis + (slice(start, end, step),)]
    return Known(value, x.dtype)


def _ranges(call: Call, rank: int) -> list[tuple[int, Any, Any, Any]]:
    starts, ends = call.whole(1, "starts") or [], call.whole(2, "ends") or []
    axes, steps = call.whole(3, "axes"), call.whole(4)
    axes = list(range(len(starts))) if axes is None else axes_of(axes, rank)
    return list(zip(axes, starts, ends, steps or [1] * len(starts), strict=True))


@register("Gather")
def _gather(call: Call) -> Result:
    x = call.tensor(0)
    axis = axis_of(call.attribute("axis", 0), x.dim())
    chosen = call.inputs[1]
    if isinstance(chosen, Known):
        if chosen.value.ndim == 0:
            return x.select(axis, chosen.whole()[0])
        if (piece := _stretch(chosen.whole())) is not None and chosen.value.ndim == 1:
            return _sliced(x, axis, piece.start, piece.stop, piece.step)
    index = call.tensor(1).long()
    if not isinstance(chosen, Known) or any(i < 0 for i in chosen.whole()):
        index = torch.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, index.reshape(-1))
    return found if index.dim() == 1 else found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _stretch(places: list[Any]) -> slice | None:
    """Places one step apart, in order, as a slice."""
    if not places or any(not isinstance(place, int) or place < 0 for place in places):
        return None
    step = places[1] - places[0] if len(places) > 1 else 1
    if step < 1 or places != list(range(places[0], places[-1] + 1, step)):
        return None
    return slice(places[0], places[-1] + 1, step)


@narrows("Gather")
def _new_places(edit: Edit) -> None:
    given = bind(edit.after[-1])
    if "index" in given:
        name = edit.node.name or edit.node.output[0]
        edit.node.input[1] = edit.add(np.asarray(given["index"], np.int64), f"{name}_place")
    else:
        edit.set_input(1, list(range(given["start"], given["end"], given["step"])))


@register("Gather", known=True)
def _gather_known(call: Call) -> Result:
    x, chosen = call.known(0), call.known(1)
    return Known.of(np.take(x.value, chosen.value.astype(np.int64), call.attribute("axis", 0)), x.dtype)


@register("GatherElements")
def _gather_elements(call: Call) -> Result:
    x, index, axis = call.tensor(0), call.tensor(1).long(), call.attribute("axis", 0)
    return x.gather(axis, torch.where(index < 0, index + x.shape[axis], index))


@register("GatherND")
def _gather_nd(call: Call) -> Result:
    x, index, batch = call.tensor(0), call.tensor(1).long(), call.attribute("batch_dims", 0)
    if batch:
        raise NotImplementedError(f"batch_dims={batch}")
    return x[tuple(index.unbind(-1))]


@register("ScatterND")
def _scatter_nd(call: Call) -> Result:
    x, index, values = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    reduction = call.attribute("reduction", "none")
    if reduction not in ("none", "add"):
        raise NotImplementedError(f"reduction={reduction}")
    return x.index_put(tuple(index.unbind(-1)), values, accumulate=reduction == "add")


@register("ScatterElements")
def _scatter(call: Call) -> Result:
    x, index, values, axis = call.tensor(0), call.tensor(1).long(), call.tensor(2), call.attribute("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    reduction = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}.get(call.attribute("reduction", "none"))
    if reduction is None:
        return x.scatter(axis, index, values)
    return x.scatter_reduce(axis, index, values, reduction)


@register("Expand")
def _expand(call: Call) -> Result:
    x, shape = call.tensor(0), call.whole(1) or []
    rank = max(x.dim(), len(shape))
    old, new = [1] * (rank - x.dim()) + list(x.shape), [1] * (rank - len(shape)) + shape
    return x.expand([b if isinstance(a, int) and a == 1 else a for a, b in zip(old, new, strict=True)])


@register("Expand", known=True)
def _expand_known(call: Call) -> Result:
    x, shape = call.known(0), call.whole(1) or []
    return Known(np.broadcast_to(x.value, np.broadcast_shapes(x.value.shape, tuple(shape))), x.dtype)


@register("Tile")
def _tile(call: Call) -> Result:
    return call.tensor(0).repeat(call.whole(1) or [])


@register("ConstantOfShape")
def _filled(call: Call) -> Result:
    shape, value = call.whole(0) or [], call.attribute("value")
    number, kind = (0.0, torch.float32) if value is None else (value.reshape(-1)[0].item(), value.dtype)
    if len(shape) <= 1 and all(isinstance(size, int) for size in shape):
        return Known.of(np.full(shape, number, object), kind)
    return torch.full(shape, number, dtype=kind)


@register("Range")
def _range(call: Call) -> Result:
    (start,), (end,), (step,) = (call.known(i).value.reshape(-1).tolist() for i in range(3))
    kind = call.known(0).dtype
    if all(isinstance(x, (int, float)) for x in (start, end, step)):
        return Known.of(torch.arange(start, end, step, dtype=kind).tolist(), kind)
    return torch.arange(start, end, step, dtype=kind)


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


@narrows("Pad")
def _new_pads(edit: Edit) -> None:
    around, rank = list(bind(edit.call("pad"))["pad"]), edit.after[-1].meta["val"].dim()
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


@register("Trilu")
def _trilu(call: Call) -> Result:
    k = (call.whole(1) or [0])[0]
    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.tensor(0), k)
