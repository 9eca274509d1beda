"""A run of a network, call by call."""

from __future__ import annotations

from typing import Any

from torch import fx
from torch.utils._pytree import tree_map

from pfpcli.graph.pending_product import PendingProduct, pending


class Run(fx.Interpreter):
    """Runs a graph call by call. A product of all positions with all positions stays pending until it is read."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call an op."""
        found = pending(target, args)
        return super().call_function(target, args, kwargs) if found is None else found

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return the outputs; a product that is one of them is computed."""
        found = super().output(target, args, kwargs)
        return tree_map(lambda x: x.whole() if isinstance(x, PendingProduct) else x, found)
