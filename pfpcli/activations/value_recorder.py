"""Value recorder: a run of a network that records the values of some of its nodes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch.fx.node import Node

from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.graph.run import Run

#: The most numbers that a run may record.
HELD = 1 << 26


class ValueRecorder(Run):
    """Runs a network and records the values of some nodes.

    Args:
        graph: the network.
        nodes: the nodes whose values are recorded.

    Attributes:
        values: node -> its value in the last run.
    """

    def __init__(self, graph: Graph, nodes: Iterable[Node]) -> None:
        super().__init__(graph.module)
        self.values: dict[Node, Any] = {}
        self._nodes = frozenset(nodes)

    def run(self, *inputs: Tensor, **settings: Any) -> Any:
        """Run the network, after freeing the values of the last run."""
        self.values = {}
        return super().run(*inputs, **settings)

    def run_node(self, n: Node) -> Any:
        """Run one node and record its value."""
        value = super().run_node(n)
        if n in self._nodes:
            self.values[n] = value
        return value


def at_a_time(graph: Graph, nodes: Iterable[Node]) -> int:
    """Return how many images can run together, so that the values of these nodes are at most `HELD` numbers."""
    if not graph.dynamic:
        return graph.batch
    held: int = sum(node.meta["val"].numel() for node in nodes if node.op != "get_attr" and is_tensor(node))
    return max(1, HELD // max(1, held // graph.batch))
