"""Walk: run images through a network and look at what its layers read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.reading_layers import Reader

#: `look(reader, x, weight)` is shown what a reader is about to read: its channels and what they are multiplied with.
Look = Callable[[Reader, Tensor, Tensor], None]


class Walk(fx.Interpreter):
    """Runs a network and shows what its readers read on the way."""

    def __init__(self, module: fx.GraphModule, found: Iterable[Reader], look: Look) -> None:
        super().__init__(module)
        self._readers: dict[Node, list[Reader]] = {}
        for reader in found:
            self._readers.setdefault(reader.node, []).append(reader)
        self._look = look

    def run_node(self, n: Node) -> object:
        """Look, then compute."""
        for reader in self._readers.get(n, ()):
            self._look(reader, self.env[reader.x], self.env[reader.weight])
        return super().run_node(n)
