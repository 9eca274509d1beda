"""Rules of ops that compute sizes, change the shape of a tensor or fill a tensor."""

from __future__ import annotations

import numpy as np
import torch

from pfpcli.graph.calls import bind
from pfpcli.onnx_io.ops.call import Call, Known, axes_of, axis_of
from pfpcli.onnx_io.ops.tables import NodeEdit, Result, register, rewriter


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


@rewriter("Reshape", "Expand")
def _rewrite_shape(edit: NodeEdit) -> None:
    call = edit.calls[-1]
    given, shape = bind(call), [*call.meta["val"].shape]
    sizes = next(given[name] for name in ("shape", "size") if name in given)
    before = [*call.args[0].meta["val"].shape, *shape][: len(shape)]
    for dim, size in enumerate(sizes):
        if not isinstance(size, int):  # a free size: 0 copies it from the input, -1 infers it
            free = 0 if before[dim] == shape[dim] else -1
            shape[dim] = 1 if edit.node.op_type == "Expand" else free
    was = edit.constant(1)
    if was is not None and len(was) == len(shape):  # sizes that the file copies or infers stay so
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
def _constant_of_shape(call: Call) -> Result:
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


@register("Trilu")
def _trilu(call: Call) -> Result:
    k = (call.whole(1) or [0])[0]
    return (torch.triu if call.attribute("upper", 1) else torch.tril)(call.tensor(0), k)
