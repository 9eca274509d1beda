"""Which numbers in a traced graph follow the batch size.

A script is traced with B rows and with B + 1 rows. A number that is k * B in one graph and k * (B + 1) in the other is
k times the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.node import map_aggregate


@dataclass(frozen=True)
class Rows:
    """A number in a graph that is `times` the number of rows of the first input."""

    times: int


#: A node -> its (args, kwargs), for the nodes with an argument that follows the batch.
Arguments = dict[fx.Node, tuple[Any, Any]]


def find_row_counts(traced: fx.GraphModule, other: fx.GraphModule, rows: int) -> Arguments | None:
    """Find the numbers that follow the batch.

    Args:
        traced: the graph of `rows` rows.
        other: the graph of `rows + 1` rows.
        rows: a number of rows.

    Returns:
        The arguments of `traced` with `Rows` in the place of such numbers; None if the graphs differ otherwise.
    """
    pairs = list(zip(traced.graph.nodes, other.graph.nodes, strict=False))
    twins = dict(pairs)
    same_ops = all((a.op, a.target) == (b.op, b.target) for a, b in pairs)
    if not same_ops or len(traced.graph.nodes) != len(other.graph.nodes):
        return None
    arguments: Arguments = {}
    for node, twin in pairs:
        theirs = leaves((twin.args, twin.kwargs))
        if len(theirs) != len(leaves((node.args, node.kwargs))):
            return None
        merged = [_merged(a, b, twins, rows) for a, b in zip(leaves((node.args, node.kwargs)), theirs, strict=True)]
        if any(value is _DIFFERENT for value in merged):
            return None
        if any(isinstance(value, Rows) for value in merged):
            arguments[node] = _refilled((node.args, node.kwargs), merged)
    return arguments


_DIFFERENT = object()


def _merged(ours: Any, theirs: Any, twins: dict[fx.Node, fx.Node], rows: int) -> Any:
    """Return one value for both graphs: the value itself, `Rows`, or `_DIFFERENT`."""
    if isinstance(ours, fx.Node):
        return ours if twins.get(ours) is theirs else _DIFFERENT
    if type(ours) is not type(theirs):
        return _DIFFERENT
    if ours == theirs:
        return ours
    times, remainder = divmod(ours, rows) if type(ours) is int else (0, 1)
    return Rows(times) if remainder == 0 and theirs == times * (rows + 1) else _DIFFERENT


def leaves(arguments: Any) -> list[Any]:
    """Return the values in nested lists, tuples and dicts of arguments."""
    found: list[Any] = []
    map_aggregate(arguments, found.append)
    return found


def _refilled(arguments: Any, values: list[Any]) -> Any:
    following = iter(values)
    return map_aggregate(arguments, lambda _: next(following))
