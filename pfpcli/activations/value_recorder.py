"""Watch: a run of a network that keeps what some of its nodes come to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.graph.graph import Graph, is_tensor

#: Numbers that a run may keep at a time.
HELD = 1 << 27


class ValueRecorder(fx.Interpreter):
    """Runs a network and keeps some of its values.

    Args:
        graph: the network.
        nodes: whose values are kept.

    Attributes:
        values: node -> what it has come to in the last run.
    """

    def __init__(self, graph: Graph, nodes: Iterable[Node]) -> None:
        super().__init__(graph.module)
        self.values: dict[Node, Any] = {}
        self._nodes = frozenset(nodes)

    def run(self, *inputs: Tensor, **settings: Any) -> Any:
        """Run the network; the values of the run before are let go of first."""
        self.values = {}
        return super().run(*inputs, **settings)

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        value = super().run_node(n)
        if n in self._nodes:
            self.values[n] = value
        return value


def at_a_time(graph: Graph, nodes: Iterable[Node]) -> int:
    """How many images may run together, so that the values of these nodes are no more numbers than `HELD`."""
    if not graph.dynamic:
        return graph.batch
    held: int = sum(node.meta["val"].numel() for node in nodes if node.op != "get_attr" and is_tensor(node))
    return max(1, HELD // max(1, held // graph.batch))
