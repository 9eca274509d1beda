"""Layers: the calls of a graph that multiply their input with weights, each shown as a matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.rules import Columns
from pfpcli.graph.graph import is_constant, owner

#: The most numbers of unfolded input, or of results, in one piece of a layer's work (`Layer.pieces`).
PIECE = 1 << 22
#: A stripe of a large image has a multiple of this many patches: the kernel of the sensitivity pads others.
_ALIGNED = 16


@dataclass(frozen=True, eq=False)
class Layer:
    """A call that multiplies its input.

    Attributes:
        node: the call.
        x: its input.
        weight: the operand that multiplies the input: weights, or other activations.
        kernel: number of kernel positions.
        patches: positions at which the layer is applied, P.
    """

    node: Node
    x: Node
    weight: Node
    kernel: int
    patches: int

    @property
    def name(self) -> str:
        """Dotted name of the layer."""
        return owner(self.node)

    @property
    def has_weights(self) -> bool:
        """Whether the input is multiplied with stored weights."""
        return is_constant(self.weight)

    def columns(self, x: Tensor, weight: Tensor, patches: Tensor | slice | None = None) -> Columns:
        """Return the layer as a matrix product; patches: the patches that are needed, int64[p] or a range, or all."""
        rule = rules.find(self.node.target)
        assert rule is not None
        assert rule.columns is not None
        return rule.columns(self.node, x, weight, patches)

    def matrix(self, weight: Tensor) -> Tensor:
        """Return the weights as in `Columns.weight`: float[G, O, J, R]."""
        # only the sizes of the input matter
        return self.columns(torch.empty(1, *self.x.meta["val"].shape[1:], device="meta"), weight).weight

    def into_weight(self, values: Tensor, weight: Tensor) -> Tensor:
        """Reorder values of the elements of `Columns.weight`, float[G, O, J, R], as the layer's own weight is."""
        return rules.into_weight(values, self.matrix, weight)

    def rows(self, x: Tensor, patches: Tensor) -> Tensor:
        """Return the input at some patches as rows: float32[G, N * p, J * R + 1], the last column is one.

        Args:
            x: float[N, ...], the input.
            patches: int64[p].
        """
        weight = torch.empty(self.weight.meta["val"].shape, device="meta")
        found = self.columns(x, weight, patches.to(x.device)).x.permute(1, 0, 4, 2, 3)
        rows = torch.ones(*found.shape[:3], found.shape[3:].numel() + 1, device=x.device)
        rows[..., :-1] = found.flatten(3)
        return rows.flatten(1, 2)

    def pieces(self, x: Tensor, weight: Tensor, *, whole: bool = False) -> Iterator[Columns]:
        """Yield the layer as matrix products in float32, each of a few images or of a stripe of a large one.

        Args:
            x: float[N, ...], the input.
            weight: the weights, or the other operand.
            whole: whether each piece has all patches of its images.
        """
        weights = weight.float()
        groups, outputs, channels, kernel = self.matrix(weights if self.has_weights else weights[:1]).shape
        held = groups * max(outputs, channels * kernel)
        images = max(1, PIECE // (held * self.patches))
        stripe = self.patches if whole else max(1, PIECE // (held * images * _ALIGNED)) * _ALIGNED
        for i, part in enumerate(x.split(images)):
            some, of_some = part.float(), weights if self.has_weights else weights[i * images : (i + 1) * images]
            for start in range(0, self.patches, stripe):
                yield self.columns(some, of_some, slice(start, start + stripe))
