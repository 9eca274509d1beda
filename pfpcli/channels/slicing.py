"""Slicing: what a plan leaves of every tensor of a graph."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labels import Axes, along


class Slicing:
    """The indices of every tensor of a graph that a plan keeps.

    Args:
        labelled: the graph and its labels.
        alive: bool[labels], which labels are kept; tied labels agree, and alive[0] is True.
    """

    def __init__(self, labelled: Labelled, alive: NDArray[np.bool_]) -> None:
        self.labelled = labelled
        self.alive = alive

    def axes(self, node: Node, result: int | None = None) -> Axes:
        """Return the labels of a node, or of one of its results."""
        found = self.labelled.axes[node]
        return found if result is None else found[result]  # type: ignore[no-any-return]

    def mask(self, node: Node, dim: int, result: int | None = None) -> NDArray[np.bool_] | None:
        """Return the kept indices along a dimension: bool[size]; None if the dimension carries no labels.

        Of a ragged dimension it returns the indices that the first part keeps: a rule that asks has tied the parts.
        """
        axes = self.axes(node, result)
        dim = axes.dim(dim)
        vector = axes.ragged[dim].rows[0] if dim in axes.ragged else axes.labels.get(dim)
        return None if vector is None else self.alive[vector.numpy()]

    def shape(self, node: Node, result: int | None = None) -> tuple[int, ...]:
        """Return the sizes after the cut."""
        axes = self.axes(node, result)
        sizes = list(axes.shape)
        for dim, vector in axes.labels.items():
            sizes[dim] = int(self.alive[vector.numpy()].sum())
        for dim, ragged in axes.ragged.items():
            sizes[dim] = int(self.alive[ragged.rows.numpy()].sum(1).max())
        return tuple(sizes)

    def keep(self, node: Node, dim: int) -> Tensor | None:
        """Return the kept indices along a dimension, ragged or not.

        Returns:
            bool, broadcastable to the shape of the tensor; None if all indices are kept.
        """
        labels = along(self.axes(node), dim)
        if labels is None:
            return None
        alive = torch.from_numpy(self.alive)[labels]
        return None if alive.all() else alive

    def is_cut(self, node: Node) -> bool:
        """Whether the tensor of a node gets smaller."""
        found = self.labelled.axes.get(node)
        return isinstance(found, Axes) and self.shape(node) != found.shape

    def tensor(self, node: Node) -> Tensor:
        """Return the original tensor of a `get_attr` node."""
        return self.labelled.graph.tensor(node)

    def slice(self, node: Node, tensor: Tensor) -> Tensor:
        """Return the kept elements of a tensor that has the labels of a node."""
        for dim in self.axes(node).ragged:  # first, because the parts lie along dimensions that are sliced below
            keep = self.keep(node, dim)
            if keep is not None:
                left = self.shape(node)[dim]
                # a stable sort moves the kept indices to the front and leaves them in order
                order = torch.sort((~keep).to(torch.int8), dim=dim, stable=True).indices
                tensor = torch.take_along_dim(tensor, order.narrow(dim, 0, left).to(tensor.device), dim)
        for dim in self.axes(node).labels:
            mask = self.mask(node, dim)
            if mask is not None and not mask.all():
                tensor = tensor.index_select(dim, torch.from_numpy(np.flatnonzero(mask)).to(tensor.device))
        return tensor
