"""Gated network: the network in which each channel that a layer reads is multiplied by the gate of its label.

A gate of 0 has the effect of dropping the channel (see `cutting.masked`); a gate of 1 has none. Unlike in a cut
network, statistics across channels still see all channels. `torch.func.vmap` over the gates runs several sets of gates
at once.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.groups import Groups
from pfpcli.channels.labels import along
from pfpcli.graph.run import Run

#: Ops that need a contiguous tensor, and the ops that do the same for any tensor.
_COPYING = {torch.ops.aten.view.default: torch.ops.aten.reshape.default}


class GatedNetwork(Run):
    """Runs a network with gates.

    Args:
        groups: the groups of the network.
        device: where its tensors are.
        units: only the layers that read one of these units get gates; None gives gates to every layer.

    Attributes:
        gates: float[labels], 1 at first.
        after: the nodes whose values depend on the gates.
        needed: the nodes whose values do not depend on the gates, and that nodes of `after` read.
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
        """Return the outputs; only the nodes that depend on the gates are computed.

        Args:
            values: of the nodes in `needed`.
        """
        before = {node: values.get(node) for node in self.graph.nodes if node not in self.after}
        return self.run(initial_env=before, enable_io_processing=False)

    def run_node(self, n: Node) -> Any:
        """Run one node; a layer with gates gets its input multiplied by them."""
        whole = {x: self.env[x] for x, _ in self._read.get(n, ())}
        for x, labels in self._read.get(n, ()):
            self.env[x] = self.env[x] * self.gates[labels]
        try:
            return super().run_node(n)
        finally:
            self.env.update(whole)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call an op; a tensor that is contiguous in one run need not be in several runs at once."""
        return super().call_function(_COPYING.get(target, target), args, kwargs)
