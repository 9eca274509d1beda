"""Output slopes: how much the decisions of a network change with each number that its layers make."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels import rules
from pfpcli.graph.graph import Graph
from pfpcli.outputs.losses import likely_losses
from pfpcli.outputs.roles import real, roles_of, select


class OutputSlopes:
    """Squares of the gradients of a network's likely losses (`outputs.losses.likely_losses`).

    The mean over images is the diagonal of the Fisher matrix: half of it times the squared error of a number is the
    divergence of the network's outputs, to second order, if errors are independent.

    Args:
        graph: the network.
        calls: the calls of layers whose results are looked at.
        most: the largest number of losses for each image.
    """

    def __init__(self, graph: Graph, calls: Iterable[Node], most: int) -> None:
        self._graph, self._most = graph, most
        self._run = ValueRecorder(graph, calls)
        self._roles = roles_of(graph)

    def of(self, images: Tensor) -> Iterator[dict[Node, Tensor]]:
        """Yield call -> the squares, summed over the losses: float[n, C_out, positions], a few images at a time.

        Args:
            images: float[N, ...], on the device of the network.
        """
        # the backward pass needs the results of all calls
        together = at_a_time(self._graph, (node for node in self._graph.nodes if node.op == "call_function"))
        for some in images.split(together):
            with torch.enable_grad():
                yield self._of(some)

    def _of(self, images: Tensor) -> dict[Node, Tensor]:
        outputs = select(real(self._run.run(images.clone().requires_grad_())), self._roles)
        values = {node: value for node, value in self._run.values.items() if value.requires_grad}
        sums = {node: torch.zeros_like(value) for node, value in self._run.values.items()}
        for loss in likely_losses(outputs, self._roles, self._most):
            slopes = torch.autograd.grad(loss, [*values.values()], retain_graph=True, allow_unused=True)
            for node, slope in zip(values, slopes, strict=True):
                if slope is not None:
                    sums[node] += slope.square()
        return {node: _as_rows(each, rules.output_dim(node)) for node, each in sums.items()}


def _as_rows(value: Tensor, dim: int) -> Tensor:
    """A result with its channels along a dimension as float[n, C_out, positions]."""
    channels = value.movedim(dim, 1)
    return channels.reshape(*channels.shape[:2], -1)
