"""Ops that take a statistic: per channel, over other dimensions, or across channels.

Labels pass. Channels that a statistic is taken across are marked inexact, because dropping one changes the others.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind

#: Batch norms as networks are traced for inference.
NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")

# Per channel -----------------------------------------------------------------------------------------------------


def _per_channel(flow: Flow, x: Axes, parameters: tuple[Any, ...]) -> dict[int, Any]:
    """Tie vectors with one entry per channel to dimension 1."""
    given = [(each, 0) for each in parameters if each is not None]
    return {**x.labels, 1: flow.join((x, 1), *given)}


@register("aten.batch_norm.default")
def batch_norm(flow: Flow, x: Axes, weight: Any, bias: Any, mean: Any, var: Any, *_: Any) -> Axes:
    """Tie scale, shift and running statistics to the channels."""
    return flow.result(_per_channel(flow, x, (weight, bias, mean, var)))


@register("aten._native_batch_norm_legit_no_training.default", "aten.native_batch_norm.default")
def native_batch_norm(flow: Flow, x: Axes, weight: Any, bias: Any, mean: Any, var: Any, *_: Any) -> tuple[Axes, ...]:
    """Label as batch_norm does; the saved statistics have one entry per channel, or none."""
    labels = _per_channel(flow, x, (weight, bias, mean, var))
    first = Axes(x.shape, {d: v for d, v in labels.items() if v is not None}, f"the result of {flow.node.name}")
    saved = {0: first.labels[1]} if 1 in first.labels else {}
    return (first, *[Axes(shape, saved if shape == x.shape[1:2] else {}) for shape in flow.shapes[1:]])


def _pool(spatial: int) -> Any:
    def flow_pool(flow: Flow, x: Axes, *_: Any, **__: Any) -> Any:
        """Freeze the last dimensions, which windows are taken over, and pass the other labels on."""
        first = len(x.shape) - spatial
        flow.freeze(x, f"pooled or resampled in {flow.node.name}", range(first, len(x.shape)))
        labels = {dim: vector for dim, vector in x.labels.items() if dim < first}
        value = flow.node.meta["val"]
        if isinstance(value, tuple):
            return tuple(Axes(shape, labels, x.origin) for shape in flow.shapes)
        return Axes(flow.shape, labels, x.origin)

    return flow_pool


@register("aten.grid_sampler.default")
def grid_sampler(flow: Flow, x: Axes, grid: Axes, *_: Any) -> Any:
    """Label as pooling does: each channel is sampled at the same positions, which are frozen."""
    flow.freeze(grid, f"sampling positions in {flow.node.name}")
    return _pool(len(x.shape) - 2)(flow, x)


for _n in (1, 2, 3):
    register(
        f"aten.adaptive_avg_pool{_n}d.default",
        f"aten.adaptive_max_pool{_n}d.default",
        f"aten.avg_pool{_n}d.default",
        f"aten.max_pool{_n}d.default",
        f"aten.max_pool{_n}d_with_indices.default",
        f"aten.reflection_pad{_n}d.default",
        f"aten.replication_pad{_n}d.default",
        f"aten.upsample_nearest{_n}d.default",
        f"aten.upsample_nearest{_n}d.vec",
        f"aten._upsample_nearest_exact{_n}d.vec",
    )(_pool(_n))
register("aten.upsample_linear1d.vec")(_pool(1))
register(
    "aten._adaptive_avg_pool2d.default",
    "aten.upsample_bicubic2d.default",
    "aten.upsample_bicubic2d.vec",
    "aten.upsample_bilinear2d.default",
    "aten.upsample_bilinear2d.vec",
    "aten._upsample_bilinear2d_aa.default",
    "aten._upsample_bilinear2d_aa.vec",
    "aten._upsample_bicubic2d_aa.default",
    "aten._upsample_bicubic2d_aa.vec",
)(_pool(2))
register("aten._adaptive_avg_pool3d.default", "aten.upsample_trilinear3d.vec")(_pool(3))


# Reductions ------------------------------------------------------------------------------------------------------


def _reduced(x: Axes, dim: Any) -> set[int]:
    if dim is None or dim == []:
        return set(range(len(x.shape)))
    return {x.dim(d) for d in (dim if isinstance(dim, (list, tuple)) else [dim])}


def _after_reduction(flow: Flow, x: Axes, dims: set[int], keepdim: bool) -> Any:
    left = [dim for dim in range(len(x.shape)) if keepdim or dim not in dims]
    labels = {i: x.labels[dim] for i, dim in enumerate(left) if dim in x.labels and dim not in dims}
    result = flow.result(labels)  # type: ignore[arg-type]
    return result if isinstance(flow.node.meta["val"], Tensor) else (result,) * len(flow.shapes)


@register("aten.sum.dim_IntList", "aten.sum.default")
def total(flow: Flow, x: Axes, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    """Read the channels that are summed over, each with weight 1: a dropped channel takes exactly its share away."""
    dims = _reduced(x, dim)
    for each in dims:
        flow.read(flow.node.args[0], x, each)  # type: ignore[arg-type]
    return _after_reduction(flow, x, dims, keepdim)


@register(
    "aten.mean.default",
    "aten.mean.dim",
    "aten.amax.default",
    "aten.amin.default",
    "aten.argmax.default",
    "aten.argmin.default",
    "aten.logsumexp.default",
    "aten.all.dim",
    "aten.any.dim",
    "aten.max.default",
    "aten.max.dim",
    "aten.min.default",
    "aten.min.dim",
    "aten.linalg_vector_norm.default",
    "aten.std.correction",
    "aten.std.dim",
    "aten.std_mean.correction",
    "aten.std_mean.dim",
    "aten.var.correction",
    "aten.var.dim",
    "aten.var_mean.correction",
    "aten.var_mean.dim",
    "aten.norm.ScalarOpt_dim",
    exact=False,
)
def statistic(flow: Flow, x: Axes, *_: Any, **__: Any) -> Any:
    """Pass labels on; a statistic across channels is taken over the kept channels, so they are marked inexact."""
    given = bind(flow.node)
    dims = _reduced(x, given.get("dim"))
    if _tells_positions(flow.node):
        flow.freeze(x, f"its indices are returned by {flow.node.target}", dims)
    for each in dims:
        flow.inexact(x.labels.get(each), f"{flow.node.target} across channels")
    return _after_reduction(flow, x, dims, bool(given.get("keepdim", False)))


def _tells_positions(node: Node) -> bool:
    """Whether the call returns the index of an extreme, which names a channel by its number."""
    if "arg" in str(node.target):
        return True
    return str(node.target) in ("aten.max.dim", "aten.min.dim") and any(user.args[1] == 1 for user in node.users)


@register("aten.softmax.int", "aten._softmax.default", "aten.log_softmax.int", "aten._log_softmax.default", exact=False)
def softmax(flow: Flow, x: Axes, dim: int, *_: Any) -> Axes:
    """Mark the softmax dimension inexact: without one channel the others grow."""
    flow.inexact(x.labels.get(x.dim(dim)), "softmax across channels")
    return flow.result(dict(x.labels))


# Norms across channels -------------------------------------------------------------------------------------------


def _resize_normalized_shape(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    rebind(copy, normalized_shape=list(slicing.shape(given["input"])[-len(given["normalized_shape"]) :]))


def _normalized(flow: Flow, x: Axes, count: int, parameters: tuple[Any, ...]) -> Axes:
    labels: dict[int, Any] = dict(x.labels)
    for i in range(count):
        dim = len(x.shape) - count + i
        labels[dim] = flow.join((x, dim), *[(each, i) for each in parameters if each is not None])
        flow.inexact(labels[dim], "normalised across channels")
    return flow.result(labels)


@register("aten.layer_norm.default", resize=_resize_normalized_shape, exact=False)
def layer_norm(flow: Flow, x: Axes, normalized_shape: list[int], weight: Any = None, bias: Any = None, *_: Any) -> Axes:
    """Take mean and variance over the last dimensions of the kept channels."""
    return _normalized(flow, x, len(normalized_shape), (weight, bias))


@register("aten.native_layer_norm.default", resize=_resize_normalized_shape, exact=False)
def native_layer_norm(
    flow: Flow, x: Axes, normalized_shape: list[int], weight: Any, bias: Any, *_: Any
) -> tuple[Axes, ...]:
    """Label as layer_norm does; the saved statistics have size 1 along the normalised dimensions."""
    first = _normalized(flow, x, len(normalized_shape), (weight, bias))
    rest = {dim: vector for dim, vector in first.labels.items() if dim < len(x.shape) - len(normalized_shape)}
    return (first, *[Axes(shape, rest) for shape in flow.shapes[1:]])


@register("aten.rms_norm.default", resize=_resize_normalized_shape, exact=False)
def rms_norm(flow: Flow, x: Axes, normalized_shape: list[int], weight: Any = None, *_: Any) -> Axes:
    """Take the root mean square over the last dimensions of the kept channels."""
    return _normalized(flow, x, len(normalized_shape), (weight,))


@register("aten.group_norm.default", exact=False)
def group_norm(flow: Flow, x: Axes, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> Axes:
    """Take statistics per group of channels; every group loses the same number of channels."""
    return _normalized_in_groups(flow, x, groups, (weight, bias))


def _normalized_in_groups(flow: Flow, x: Axes, groups: int, parameters: tuple[Any, ...]) -> Axes:
    labels = _per_channel(flow, x, parameters)
    flow.inexact(labels[1], "normalised across channels")
    flow.balance_blocks(labels[1], groups)
    return flow.result(labels)


def _resize_group_norm(slicing: Slicing, node: Node, copy: Node) -> None:
    rebind(copy, C=slicing.shape(bind(node)["input"])[1])


@register("aten.native_group_norm.default", resize=_resize_group_norm, exact=False)
def native_group_norm(
    flow: Flow, x: Axes, weight: Any, bias: Any, n: int, c: int, positions: int, groups: int, *_: Any
) -> tuple[Axes, ...]:
    """Label as group_norm does; the saved statistics have one entry per sample and group."""
    first = _normalized_in_groups(flow, x, groups, (weight, bias))
    return (first, *[Axes(shape) for shape in flow.shapes[1:]])


@register("aten.instance_norm.default", exact=False)
def instance_norm(
    flow: Flow, x: Axes, weight: Any, bias: Any, mean: Any, var: Any, use_input_stats: bool = True, *_: Any
) -> Axes:
    """Label as batch_norm does; channels that a reshape moved among the positions are normalised together."""
    if use_input_stats:
        for dim in range(2, len(x.shape)):
            flow.inexact(x.labels.get(dim), "normalised across channels")
    return flow.result(_per_channel(flow, x, (weight, bias, mean, var)))
