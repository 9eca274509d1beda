"""Layers: the calls of a graph that multiply what they read with weights, each shown as a matrix product."""

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

#: Numbers of unfolded input that a layer is looked at with at a time.
_CHUNK = 1 << 22


@dataclass(frozen=True, eq=False)
class Layer:
    """A call that multiplies what it reads.

    Attributes:
        node: the call.
        x: what it reads.
        weight: the operand that is multiplied with: weights, or other activations.
        kernel: positions of its kernel.
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
        """Whether it has weights of its own."""
        return is_constant(self.weight)

    def columns(self, x: Tensor, weight: Tensor) -> Columns:
        """The layer as a matrix product."""
        rule = rules.find(self.node.target)
        assert rule is not None
        assert rule.columns is not None
        return rule.columns(self.node, x, weight)

    def matrix(self, weight: Tensor) -> Tensor:
        """Its weights as `Columns.weight`: float[G, O, J, R]."""
        # the sizes of what it reads are enough
        return self.columns(torch.empty(1, *self.x.meta["val"].shape[1:], device="meta"), weight).weight

    def into_weight(self, values: Tensor, weight: Tensor) -> Tensor:
        """Values for the places of `Columns.weight`, float[G, O, J, R], brought to those of the layer's own weight."""
        return rules.into_weight(values, self.matrix, weight)

    def pieces(self, x: Tensor, weight: Tensor) -> Iterator[Columns]:
        """The layer as matrix products, in float32, of a few images at a time.

        Args:
            x: float[N, ...], what it reads.
            weight: its weights, or the other operand.
        """
        step = max(1, _CHUNK // max(1, x[0].numel() * self.kernel))
        per_sample = repeat(weight) if self.has_weights else weight.split(step)
        for part, weights in zip(x.split(step), per_sample, strict=False):
            yield self.columns(part.float(), weights.float())
