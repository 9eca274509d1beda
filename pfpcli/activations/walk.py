"""Walk: a run of a network that shows what some layers read to a function; what none of them needs is not computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.reading_layers import Reader
from pfpcli.graph.graph import reached
from pfpcli.graph.run import Run

#: `look(reader, x, weight)` is called before a layer runs, with its input and its weights. The weights of a product of
#: activations are its other operand.
Look = Callable[[Reader, Tensor, Tensor], None]


class Walk(Run):
    """Runs a network as far as some of its layers need it, and shows what they read.

    Args:
        module: the network.
        readers: the layers to look at.
        look: the function that is called.
    """

    def __init__(self, module: fx.GraphModule, readers: Iterable[Reader], look: Look) -> None:
        super().__init__(module)
        self._look = look
        self._readers: dict[Node, list[Reader]] = {}
        for reader in readers:
            self._readers.setdefault(reader.node, []).append(reader)
        self._computed = self._needed()
        #: nothing is computed for them; placeholders take the inputs in their order, so all of them are computed
        self._skipped = {n for n in self.graph.nodes if n not in self._computed and n not in self._readers}
        self.user_to_last_uses = self._last_uses()

    def run(self, *inputs: Tensor) -> None:  # type: ignore[override]
        """Show what the layers read.

        Args:
            inputs: float[N, ...] for each input of the network.
        """
        super().run(*inputs, initial_env=dict.fromkeys(self._skipped))

    def run_node(self, n: Node) -> Any:
        """Show the inputs of one node, then run it if its value is needed."""
        for reader in self._readers.get(n, ()):
            self._look(reader, self.env[reader.x], self.env[reader.weight])
        return super().run_node(n) if n in self._computed else None

    def _needed(self) -> set[Node]:
        """The nodes that the inputs of the layers depend on, and the inputs of the network."""
        read = [node for each in self._readers.values() for reader in each for node in (reader.x, reader.weight)]
        inputs = {node for node in self.graph.nodes if node.op == "placeholder"}
        return inputs | reached(read, lambda node: node.all_input_nodes)

    def _last_uses(self) -> dict[Node, list[Node]]:
        """The values that can be freed after each node, by the nodes that run."""
        last = {}
        for node in self.graph.nodes:
            if node in self._computed:
                last.update(dict.fromkeys(node.all_input_nodes, node))
            for reader in self._readers.get(node, ()):
                last.update(dict.fromkeys((reader.x, reader.weight), node))
        found: dict[Node, list[Node]] = {}
        for node, user in last.items():
            found.setdefault(user, []).append(node)
        return found
