"""Shelf: the values of many batches between two visits, in memory as far as they fit and in a file beyond that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.stored_tensors import NamelessFile, StoredTensor
from pfpcli.graph.pending_product import PendingProduct

#: The most bytes of values in memory: on a CPU, and on other devices, which have their own memory.
MOST_BYTES = 1 << 27
MOST_BYTES_ELSEWHERE = 1 << 32


class Shelf:
    """Keeps the values of nodes for some batches.

    Args:
        most: the most bytes in memory.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._left = most

    def put(self, values: Mapping[Node, Any], before: Mapping[Node, Any] | None = None) -> dict[Node, Any]:
        """Return the values, those that do not fit into memory as what stands for them in a file.

        Args:
            values: node -> its value.
            before: what `take` was given. What lies in a file already is not written again.
        """
        found: dict[Node, Any] = {}
        file: NamelessFile | None = None
        for node, value in values.items():
            there = (before or {}).get(node)
            if isinstance(there, StoredTensor):
                found[node] = there
                continue
            if _bytes(value) > self._left and not isinstance(value, PendingProduct):
                file = file or NamelessFile()
                found[node] = StoredTensor(file, value)
                continue
            self._left -= _bytes(value)
            found[node] = value
        return found

    def take(self, values: Mapping[Node, Any], needed: Collection[Node]) -> dict[Node, Any]:
        """Return the values that `put` was given, which no longer count as kept; those that are needed in memory."""
        self._left += sum(map(_bytes, values.values()))
        return {node: read(value) if node in needed else value for node, value in values.items()}


def _bytes(value: Any) -> int:
    """The memory that a value takes; a pending product takes that of its operands, and lies in no file."""
    if isinstance(value, PendingProduct):
        return value.held_bytes
    return value.nbytes if isinstance(value, Tensor) else 0


def read(value: Any) -> Any:
    """Return a value of a shelf as it was."""
    return value.read() if isinstance(value, StoredTensor) else value
