"""Gates: the network with what its readers read multiplied by one number per label.

A gate of 0 is what dropping the channel comes to (see `masked`), a gate of 1 leaves it. Statistics across channels are
taken over all of them here. The gates may be those of several runs at once (`torch.func.vmap` over them).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.groups import Groups
from pfpcli.channels.labels import along

#: Calls that need one stretch of memory, and what they are without that.
_COPYING = {torch.ops.aten.view.default: torch.ops.aten.reshape.default}


class GatedNetwork(fx.Interpreter):
    """Runs a graph with gates.

    Args:
        groups: the graph's units.
        device: where its tensors are.
        units: gate what reads one of these; None gates every reader.

    Attributes:
        gates: float[labels].
        after: the nodes whose values depend on the gates.
        needed: the nodes in front of these whose values they read.
    """

    def __init__(self, groups: Groups, device: torch.device, units: Collection[int] | None = None) -> None:
        labelled = groups.labelled
        super().__init__(labelled.graph.module)
        wanted = None if units is None else torch.tensor(sorted(units))
        root = torch.from_numpy(groups.root)
        self.gates = torch.ones(len(root), device=device)
        self._read: dict[Node, list[tuple[Node, Tensor]]] = {}
        for contraction in labelled.contractions:
            labels = along(labelled.axes[contraction.x], contraction.dim)
            if labels is not None and (wanted is None or torch.isin(root[labels], wanted).any()):
                self._read.setdefault(contraction.node, []).append((contraction.x, labels.to(device)))

        self.after: set[Node] = set()
        for node in self.graph.nodes:
            if node in self._read or not self.after.isdisjoint(node.all_input_nodes):
                self.after.add(node)
        sources = {source for node in self.after for source in node.all_input_nodes}
        self.needed = sources - self.after

    def rerun(self, values: dict[Node, object]) -> Any:
        """The outputs, with only what depends on the gates computed anew; values: of the nodes that are needed."""
        before = {node: values.get(node) for node in self.graph.nodes if node not in self.after}
        return self.run(initial_env=before, enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        """Run one node; a reader sees its input through the gates."""
        whole = {x: self.env[x] for x, _ in self._read.get(n, ())}
        for x, labels in self._read.get(n, ()):
            self.env[x] = self.env[x] * self.gates[labels]
        try:
            return super().run_node(n)
        finally:
            self.env.update(whole)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The call; what is one stretch of memory in one run need not be one in several at once."""
        return super().call_function(_COPYING.get(target, target), args, kwargs)
