"""A run of a network, call by call."""

from __future__ import annotations

from typing import Any

from torch import fx

from pfpcli.graph.pending_product import pending


class Run(fx.Interpreter):
    """Runs a graph call by call. A product of all positions with all positions stays pending until it is read."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call an op."""
        found = pending(target, args)
        return super().call_function(target, args, kwargs) if found is None else found
