"""The masked network: the original with dropped channels set to zero where layers read them.

A cut network must equal its masked network. A dropped channel is set to zero at the input of every reading layer, not
at the output of the layer that makes it: a batch norm in between would turn the zero into its beta. Zeros have no such
effect on statistics across channels (layer norm, softmax over channels). The masked network computes these over the
kept channels, and their groups are reported as inexact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.node import Node, map_aggregate, map_arg

from pfpcli.channels import rules
from pfpcli.channels.labels import Axes
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.run import Run


class InFloat64(Run):
    """Runs a graph in float64, including the dtypes among its arguments; the inputs have to be float64."""

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The tensor, in float64."""
        value = super().get_attr(target, args, kwargs)
        return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The call, with float64 in the place of the dtype float32 among its arguments."""
        args, kwargs = map_aggregate((args, kwargs), _widen)
        return super().call_function(target, args, kwargs)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Run without gradients. New tensors, such as those of `zeros`, are float64 by default."""
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            with torch.no_grad():
                return super().run(*args, **kwargs)
        finally:
            torch.set_default_dtype(default)


def _widen(value: Any) -> Any:
    return torch.float64 if value is torch.float32 else value


class Masked(InFloat64):
    """Runs the original graph without the effect of its dropped channels.

    Args:
        slicing: the kept part of every tensor of the graph.
    """

    def __init__(self, slicing: Slicing) -> None:
        super().__init__(slicing.labelled.graph.module)
        self._slicing = slicing
        self._read: dict[Node, list[tuple[Node, int]]] = {}
        for contraction in slicing.labelled.contractions:
            self._read.setdefault(contraction.node, []).append((contraction.x, contraction.dim))

    def run_node(self, n: Node) -> Any:
        """Run one node: a reading layer gets zeros for dropped channels, a statistic gets only kept channels."""
        rule = rules.find(n.target) if n.op == "call_function" else None
        if rule is not None and not rule.exact and any(map(self._slicing.is_cut, n.all_input_nodes)):
            return self._run_statistic(n)
        read = self._read.get(n, ())
        whole = {x: self.env[x] for x, _ in read}
        for x, dim in read:
            self.env[x] = _masked(self.env[x], self._slicing.keep(x, dim))
        try:
            return super().run_node(n)
        finally:
            self.env.update(whole)

    def _run_statistic(self, node: Node) -> Any:
        """The call on kept channels only; its result gets zeros in the places of dropped channels."""
        copy = fx.Graph().node_copy(node, lambda n: n)
        rule = rules.find(node.target)
        if rule is not None and rule.resize is not None:
            rule.resize(self._slicing, node, copy)
        args, kwargs = map_arg((copy.args, copy.kwargs), self._sliced)
        result = self.call_function(node.target, args, kwargs)
        axes = self._slicing.axes(node)
        if isinstance(axes, tuple):
            return tuple(self._spread(node, part, i) for i, part in enumerate(result))
        return self._spread(node, result, None)

    def _sliced(self, node: Node) -> Any:
        """The value of a node, sliced to the kept channels."""
        value = self.env[node]
        return self._slicing.slice(node, value) if isinstance(self._slicing.labelled.axes.get(node), Axes) else value

    def _spread(self, node: Node, part: Tensor, result: int | None) -> Tensor:
        """A sliced value in the full shape of its node, with zeros in the places of dropped channels."""
        axes = self._slicing.axes(node, result)
        for dim in axes.labels:
            mask = self._slicing.mask(node, dim, result)
            if mask is not None and not mask.all():
                sizes = list(part.shape)
                sizes[dim] = len(mask)
                whole = part.new_zeros(sizes)
                part = whole.index_copy(dim, torch.from_numpy(np.flatnonzero(mask)), part)
        return part


def _masked(x: Tensor, keep: Tensor | None) -> Tensor:
    # not a product: 0 times an infinite number is nan
    return x if keep is None else torch.where(keep.to(x.device), x, torch.zeros_like(x))
