"""Rules of ops that combine several elements: norms, pooling, reductions, softmax."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.onnx_io.ops.call import Call, Known, axes_of, axis_of
from pfpcli.onnx_io.ops.contraction import Window, padded
from pfpcli.onnx_io.ops.tables import NodeEdit, Result, register, rewriter

_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@register("BatchNormalization")
def _batch_norm(call: Call) -> Result:
    x, weight, bias, mean, var = call.tensors()
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, call.attribute("epsilon", 1e-5))


@register("InstanceNormalization")
def _instance_norm(call: Call) -> Result:
    x, weight, bias = call.tensors()
    return F.instance_norm(x, None, None, weight, bias, True, 0.0, call.attribute("epsilon", 1e-5))


@register("LayerNormalization")
def _layer_norm(call: Call) -> Result:
    x, weight, bias, epsilon = call.tensor(0), call.tensor(1), call.optional(2), call.attribute("epsilon", 1e-5)
    axis = axis_of(call.attribute("axis", -1), x.dim())
    shape = list(x.shape[axis:])
    if list(weight.shape) == shape and (bias is None or list(bias.shape) == shape):
        normed = F.layer_norm(x, shape, weight, bias, epsilon)
    else:
        normed = F.layer_norm(x, shape, None, None, epsilon) * weight
        normed = normed if bias is None else normed + bias
    if call.outputs == 1:
        return normed
    dims = list(range(axis, x.dim()))
    mean = x.mean(dims, keepdim=True)
    return normed, mean, (x.var(dims, unbiased=False, keepdim=True) + epsilon).rsqrt()


@rewriter("LayerNormalization", "RMSNormalization")
def _keep_axis(edit: NodeEdit) -> None:
    """Change nothing: the node names its first normalised axis, not the sizes."""


@register("RMSNormalization")
def _rms_norm(call: Call) -> Result:
    x, weight = call.tensor(0), call.tensor(1)
    axis = axis_of(call.attribute("axis", -1), x.dim())
    return F.rms_norm(x, list(x.shape[axis:]), None, call.attribute("epsilon", 1e-5)) * weight


@register("GroupNormalization")
def _group_norm(call: Call) -> Result:
    x, weight, bias = call.tensors()
    groups, epsilon = call.attribute("num_groups"), call.attribute("epsilon", 1e-5)
    if call.version < 21:  # before opset 21, weight and bias have one number per group
        per = x.shape[1] // groups
        weight, bias = weight.repeat_interleave(per), bias.repeat_interleave(per)
    return F.group_norm(x, groups, weight, bias, epsilon)


@register("LRN")
def _lrn(call: Call) -> Result:
    alpha, beta, bias = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75), call.attribute("bias", 1.0)
    return F.local_response_norm(call.tensor(0), call.attribute("size"), alpha, beta, bias)


@register("LpNormalization")
def _lp(call: Call) -> Result:
    return F.normalize(call.tensor(0), call.attribute("p", 2), call.attribute("axis", -1))


@register("MaxPool")
def _max_pool(call: Call) -> Result:
    x, kernel = call.tensor(0), call.attribute("kernel_shape")
    window = Window.of(call, kernel)
    x, both = _pool_padded(x, window.padding(call, x.shape[2:]), kernel, float("-inf"))
    pool, ceil = _MAX_POOL[len(kernel)], bool(call.attribute("ceil_mode", 0))
    return pool(x, kernel, window.strides, both, window.dilations, ceil)


@register("AveragePool")
def _average_pool(call: Call) -> Result:
    x, kernel = call.tensor(0), call.attribute("kernel_shape")
    window = Window.of(call, kernel)
    pads, strides = window.padding(call, x.shape[2:]), window.strides
    counted, ceil = bool(call.attribute("count_include_pad", 0)), bool(call.attribute("ceil_mode", 0))
    if any(each != 1 for each in window.dilations):
        return _dilated_average(x, window, pads, counted=counted, ceil=ceil)
    pool = _AVG_POOL[len(kernel)]
    if all(low == high and 2 * low <= k for (low, high), k in zip(pads, kernel, strict=True)):
        return pool(x, kernel, strides, [low for low, _ in pads], ceil, counted)
    around = [n for pair in reversed(pads) for n in pair]
    y = pool(F.pad(x, around), kernel, strides, 0, ceil, True)
    if counted:
        return y
    return y / pool(F.pad(torch.ones_like(x[:1, :1]), around), kernel, strides, 0, ceil, True)


def _dilated_average(x: Tensor, window: Window, pads: list[tuple[int, int]], *, counted: bool, ceil: bool) -> Tensor:
    """Average over a window with gaps, as a sum of shifted images; torch's pooling has none.

    Args:
        x: float[N, C, ...].
        window: the window.
        pads: (before, after) for each spatial dimension.
        counted: whether the padding counts as zeros.
        ceil: whether a window may reach beyond the padding; what lies there never counts.
    """
    around = [n for pair in reversed(pads) for n in pair]
    sizes = [size + low + high - span for size, (low, high), span in zip(x.shape[2:], pads, window.spans, strict=True)]
    steps = [(-(-size // step) if ceil else size // step) for size, step in zip(sizes, window.strides, strict=True)]
    if ceil:  # no window starts in the padding at the end
        parts = zip(steps, window.strides, x.shape[2:], pads, strict=True)
        steps = [n - 1 if n * step >= size + low else n for n, step, size, (low, _) in parts]
    beyond = [max(0, n * step - size) for n, step, size in zip(steps, window.strides, sizes, strict=True)]
    more = [n for each in reversed(beyond) for n in (0, each)]
    ones = F.pad(F.pad(torch.ones_like(x[:1, :1]), around, value=float(counted)), more)
    sums = []
    for image in (F.pad(F.pad(x, around), more), ones):
        total = torch.zeros(())
        for offsets in product(*(range(k) for k in window.kernel)):
            shifted = image
            for dim, (offset, gap, step, n) in enumerate(
                zip(offsets, window.dilations, window.strides, steps, strict=True), 2
            ):
                shifted = shifted[(slice(None),) * dim + (slice(offset * gap, offset * gap + n * step + 1, step),)]
            total = total + shifted
        sums.append(total)
    return sums[0] / sums[1]


def _pool_padded(x: Tensor, pads: list[tuple[int, int]], kernel: list[int], value: float) -> tuple[Tensor, list[int]]:
    """Pad as `padded` does, and add all of the padding if it is more than torch's pooling accepts."""
    if any(2 * min(pair) > k for pair, k in zip(pads, kernel, strict=True)):
        return F.pad(x, [n for pair in reversed(pads) for n in pair], value=value), [0] * len(pads)
    return padded(x, pads, value)


@register("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Result:
    x = call.tensor(0)
    if call.op == "GlobalMaxPool":
        return x.amax(tuple(range(2, x.dim())), keepdim=True)
    return F.adaptive_avg_pool2d(x, 1) if x.dim() == 4 else x.mean(tuple(range(2, x.dim())), keepdim=True)


_REDUCED: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, dims, keep: x.mean(dims, keep),
    "ReduceSum": lambda x, dims, keep: x.sum(dims, keep),
    "ReduceMax": lambda x, dims, keep: x.amax(dims, keep),
    "ReduceMin": lambda x, dims, keep: x.amin(dims, keep),
    "ReduceL1": lambda x, dims, keep: x.abs().sum(dims, keep),
    "ReduceL2": lambda x, dims, keep: x.square().sum(dims, keep).sqrt(),
    "ReduceSumSquare": lambda x, dims, keep: x.square().sum(dims, keep),
    "ReduceLogSum": lambda x, dims, keep: x.sum(dims, keep).log(),
    "ReduceLogSumExp": lambda x, dims, keep: x.logsumexp(dims, keep),
}


@register(*_REDUCED)
def _reduce(call: Call) -> Result:
    x, axes, keep = call.tensor(0), call.whole(1, "axes"), bool(call.attribute("keepdims", 1))
    if not axes and call.attribute("noop_with_empty_axes", 0):
        return x
    return _REDUCED[call.op](x, axes_of(axes or None, x.dim()), keep)


@register("ReduceProd")
def _reduce_product(call: Call) -> Result:
    x, keep = call.tensor(0), bool(call.attribute("keepdims", 1))
    for axis in sorted(axes_of(call.whole(1, "axes"), x.dim()), reverse=True):
        x = x.prod(axis, keep)
    return x


@register("ReduceProd", known=True)
def _reduce_product_known(call: Call) -> Result:
    found: Any = 1
    for number in call.known(0).value.reshape(-1).tolist():
        found = found * number
    keep = call.attribute("keepdims", 1)
    return Known.of([found] if keep else found, call.known(0).dtype)


@register("ArgMax", "ArgMin")
def _arg_extreme(call: Call) -> Result:
    x, axis, keep = call.tensor(0), call.attribute("axis", 0), bool(call.attribute("keepdims", 1))
    if call.attribute("select_last_index", 0):
        return torch.rsub(_ARG[call.op](x.flip(axis), axis, keep), x.shape[axis] - 1)
    return _ARG[call.op](x, axis, keep)


_ARG: dict[str, Callable[[Tensor, int, bool], Tensor]] = {"ArgMax": torch.argmax, "ArgMin": torch.argmin}


@register("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Result:
    x, compute = call.tensor(0), (F.softmax if call.op == "Softmax" else F.log_softmax)
    if call.version >= 13:
        return compute(x, call.attribute("axis", -1))
    axis = axis_of(call.attribute("axis", 1), x.dim())
    if axis == x.dim() - 1:
        return compute(x, axis)
    return compute(x.flatten(axis), axis).view(x.shape)


@register("CumSum")
def _cumsum(call: Call) -> Result:
    x, (axis,) = call.tensor(0), call.whole(1) or [0]
    backwards = call.attribute("reverse", 0)
    x = x.flip(axis) if backwards else x
    found = x.cumsum(axis, dtype=x.dtype)
    found = found - x if call.attribute("exclusive", 0) else found
    return found.flip(axis) if backwards else found


@register("TopK")
def _top(call: Call) -> Result:
    found = call.whole(1, None)
    count = found[0] if found else call.attribute("k")
    largest, ordered = bool(call.attribute("largest", 1)), bool(call.attribute("sorted", 1))
    values, places = call.tensor(0).topk(count, call.attribute("axis", -1), largest, ordered)
    return values, places
