"""Rules of ops that join, split, slice, gather and scatter tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pfpcli.graph.calls import bind
from pfpcli.onnx_io.ops.call import Call, Known, axes_of, axis_of
from pfpcli.onnx_io.ops.tables import NodeEdit, Result, register, rewriter


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
    return tuple(x.split(_part_sizes(call, x.shape[axis]), axis))


@rewriter("Split")
def _rewrite_parts(edit: NodeEdit) -> None:
    edit.set_numbers(1, "split", [*bind(edit.call("split_with_sizes"))["split_sizes"]])
    edit.drop_attribute("num_outputs")


@register("Split", known=True)
def _split_known(call: Call) -> Result:
    x, axis = call.known(0), call.attribute("axis", 0)
    ends = np.cumsum(_part_sizes(call, x.value.shape[axis]))[:-1]
    return tuple(Known(part, x.dtype) for part in np.split(x.value, ends, axis))


def _part_sizes(call: Call, size: int) -> list[int]:
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
    """Slice one axis in one ATen call; Python's indexing would make a call for each axis before it."""
    found: torch.Tensor = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
    return found


def _backwards(start: int, end: int, size: int) -> tuple[int, int]:
    """Return start and end in the flipped axis of a range that runs backwards from start to end."""
    start = min(start + size if start < 0 else start, size - 1)
    end = max(-1, end + size if end < 0 else end) if end >= -size else -1
    return size - 1 - start, size - 1 - end


@rewriter("Slice")
def _rewrite_ranges(edit: NodeEdit) -> None:
    given = [bind(each) for each in edit.calls if "slice" in str(each.target)]
    ranges = [(each["dim"], each["start"] or 0, each["end"], each["step"]) for each in given]
    ranges = [each for each in ranges if each[1:] != (0, _END, 1)]
    if len(given) < len(edit.calls):
        raise ValueError("a backward slice")
    axes, starts, ends, steps = (list(each) for each in zip(*ranges, strict=True))
    for index, (name, numbers) in enumerate({"starts": starts, "ends": ends, "axes": axes, "steps": steps}.items(), 1):
        if name != "steps" or any(step != 1 for step in numbers):
            edit.set_numbers(index, name, numbers)


#: The number that stands for the end of a dimension.
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
        if (piece := _as_slice(chosen.whole())) is not None and chosen.value.ndim == 1:
            return _sliced(x, axis, piece.start, piece.stop, piece.step)
    index = call.tensor(1).long()
    if not isinstance(chosen, Known) or any(i < 0 for i in chosen.whole()):
        index = torch.where(index < 0, index + x.shape[axis], index)
    found = x.index_select(axis, index.reshape(-1))
    return found if index.dim() == 1 else found.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def _as_slice(indices: list[Any]) -> slice | None:
    """Return evenly spaced, increasing indices as a slice, None for other indices."""
    if not indices or any(not isinstance(index, int) or index < 0 for index in indices):
        return None
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if step < 1 or indices != list(range(indices[0], indices[-1] + 1, step)):
        return None
    return slice(indices[0], indices[-1] + 1, step)


@rewriter("Gather")
def _rewrite_places(edit: NodeEdit) -> None:
    given = bind(edit.calls[-1])
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
    places = index.dim() - 1
    # the index of a batch dimension runs along that dimension of the indices
    own = [
        torch.arange(x.shape[i], device=x.device).view([-1 if i == j else 1 for j in range(places)])
        for i in range(batch)
    ]
    return x[(*own, *index.unbind(-1))]


#: ONNX's name of a reduction -> torch's.
_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@register("ScatterND")
def _scatter_nd(call: Call) -> Result:
    x, index, values = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    reduction = call.attribute("reduction", "none")
    if reduction in ("none", "add"):
        return x.index_put(tuple(index.unbind(-1)), values, accumulate=reduction == "add")
    row = index.new_zeros(())
    for size, each in zip(x.shape, index.unbind(-1), strict=False):
        row = row * size + torch.where(each < 0, each + size, each)
    rows, added = x.flatten(0, index.shape[-1] - 1), values.reshape(row.numel(), *x.shape[index.shape[-1] :])
    wide = row.reshape(-1, *[1] * (added.dim() - 1)).expand_as(added)
    return rows.scatter_reduce(0, wide, added, _REDUCTIONS[reduction]).view_as(x)


@register("ScatterElements")
def _scatter_elements(call: Call) -> Result:
    x, index, values, axis = call.tensor(0), call.tensor(1).long(), call.tensor(2), call.attribute("axis", 0)
    index = torch.where(index < 0, index + x.shape[axis], index)
    reduction = _REDUCTIONS.get(call.attribute("reduction", "none"))
    if reduction is None:
        return x.scatter(axis, index, values)
    return x.scatter_reduce(axis, index, values, reduction)
