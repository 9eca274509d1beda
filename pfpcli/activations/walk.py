"""Walk: a run of a network that shows what each layer reads to a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.reading_layers import Reader

#: `look(reader, x, weight)` is called before a layer runs, with its input and its weights. The weights of a product of
#: activations are its other operand.
Look = Callable[[Reader, Tensor, Tensor], None]


class Walk(fx.Interpreter):
    """Runs a network and shows what some of its layers read.

    Args:
        module: the network.
        readers: the layers to look at.
        look: the function that is called.
    """

    def __init__(self, module: fx.GraphModule, readers: Iterable[Reader], look: Look) -> None:
        super().__init__(module)
        self._readers: dict[Node, list[Reader]] = {}
        for reader in readers:
            self._readers.setdefault(reader.node, []).append(reader)
        self._look = look

    def run_node(self, n: Node) -> object:
        """Show the inputs of one node, then run it."""
        for reader in self._readers.get(n, ()):
            self._look(reader, self.env[reader.x], self.env[reader.weight])
        return super().run_node(n)
