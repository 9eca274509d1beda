"""Rebuilding: the user's own module with the tensors of the cut network, if its forward still computes the same."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pfpcli.graph.data_independent import data_independent_part
from pfpcli.graph.difference import largest_difference
from pfpcli.graph.graph import Graph

#: The largest accepted difference of module and graph in float32, relative to the largest absolute number of an output.
TOLERANCE = 1e-4


def rebuild(module: nn.Module, smaller: Graph) -> tuple[nn.Module | None, str]:
    """Copy a module and give the copy the tensors of the cut network.

    Args:
        module: the original; it stays unchanged.
        smaller: the graph of the cut network.

    Returns:
        The copy and "ok"; or None and the reason, if the forward of the copy fails or computes something else.
    """
    tensors = dict(smaller.module.named_parameters(remove_duplicate=False)) | dict(smaller.module.named_buffers())
    # a copy takes what this says instead of copying the tensor
    smaller_ones: dict[int, Any] = {
        id(value): _like(value, tensors[name]) for name, value in _tensors(module).items() if name in tensors
    }
    twin = copy.deepcopy(module, smaller_ones)
    for part in twin.modules():
        for kind, set_widths in _WIDTHS:
            if isinstance(part, kind):
                set_widths(part)
    try:
        part = data_independent_part(twin, smaller.example)[0] if smaller.stops else twin
        with torch.no_grad():
            found, expected = part(*smaller.example), smaller(*smaller.example)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return None, f"its own forward fails on the smaller tensors ({lines[0]})"
    found, expected = tree_leaves(found), tree_leaves(expected)
    difference = largest_difference(found, expected)
    if difference > TOLERANCE:
        same = [x.shape for x in found] == [x.shape for x in expected]
        what = f"differs by {difference:.1e}" if same else "has another shape"
        return None, f"the output of its own forward {what}: its code contains fixed sizes"
    return twin, "ok"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    """Return a copy of a value, as a parameter if the tensor is one."""
    copied = value.detach().clone()
    return nn.Parameter(copied, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copied


def _conv(part: nn.Module) -> None:
    assert isinstance(part, nn.modules.conv._ConvNd)
    first, second = part.weight.shape[:2]
    if part.groups > 1 and part.groups == part.in_channels:
        multiple = part.out_channels // part.in_channels
        part.groups = first if part.transposed else first // multiple
    ends = (first, second * part.groups)
    part.in_channels, part.out_channels = ends if part.transposed else ends[::-1]


def _linear(part: nn.Module) -> None:
    part.out_features, part.in_features = part.weight.shape  # type: ignore


def _batch_norm(part: nn.Module) -> None:
    sized = part.weight if part.weight is not None else part.running_mean
    if sized is not None:
        part.num_features = len(sized)  # type: ignore


def _layer_norm(part: nn.Module) -> None:
    if part.weight is not None:
        part.normalized_shape = tuple(part.weight.shape)  # type: ignore


def _group_norm(part: nn.Module) -> None:
    if part.weight is not None:
        part.num_channels = len(part.weight)  # type: ignore


#: Kind of layer -> sets the attributes that repeat sizes of its tensors.
_WIDTHS: list[tuple[type[nn.Module], Callable[[nn.Module], None]]] = [
    (nn.modules.conv._ConvNd, _conv),
    (nn.Linear, _linear),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    (nn.LayerNorm, _layer_norm),
    (nn.GroupNorm, _group_norm),
]
