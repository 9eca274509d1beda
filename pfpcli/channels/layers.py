"""Layers: the calls of a graph that multiply their input with weights, each shown as a matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.rules import Columns
from pfpcli.graph.graph import is_constant, owner

#: The most numbers of unfolded input in one piece of a layer's work (`Layer.pieces`).
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Layer:
    """A call that multiplies its input.

    Attributes:
        node: the call.
        x: its input.
        weight: the operand that multiplies the input: weights, or other activations.
        kernel: number of kernel positions.
    """

    node: Node
    x: Node
    weight: Node
    kernel: int

    @property
    def name(self) -> str:
        """Dotted name of the layer."""
        return owner(self.node)

    @property
    def has_weights(self) -> bool:
        """Whether the input is multiplied with stored weights."""
        return is_constant(self.weight)

    def columns(self, x: Tensor, weight: Tensor) -> Columns:
        """Return the layer as a matrix product."""
        rule = rules.find(self.node.target)
        assert rule is not None
        assert rule.columns is not None
        return rule.columns(self.node, x, weight)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weights as in `Columns.weight`: float[G, O, J, R]."""
        # only the sizes of the input matter
        return self.columns(torch.empty(1, *self.x.meta["val"].shape[1:], device="meta"), weight).weight

    def into_weight(self, values: Tensor, weight: Tensor) -> Tensor:
        """Reorder values of the elements of `Columns.weight`, float[G, O, J, R], as the layer's own weight is."""
        return rules.into_weight(values, self.matrix, weight)

    def pieces(self, x: Tensor, weight: Tensor) -> Iterator[Columns]:
        """Yield the layer as matrix products in float32, each of a few images.

        Args:
            x: float[N, ...], the input.
            weight: the weights, or the other operand.
        """
        step = max(1, _CHUNK // max(1, x[0].numel() * self.kernel))
        per_sample = repeat(weight) if self.has_weights else weight.split(step)
        for part, weights in zip(x.split(step), per_sample, strict=False):
            yield self.columns(part.float(), weights.float())
