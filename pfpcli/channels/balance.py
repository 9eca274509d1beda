"""Balance: from ties and balances to units, and to rows of units that each lose the same number of units.

Rows in balance choose freely which units they lose if no unit is in two rows and no row is part of a row of another
balance. Otherwise the units at the same index of the rows are tied, which is always right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.channels.heads import owned_units, same_parts
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labels import Store
from pfpcli.channels.units import places

#: The units of one row.
_Row = tuple[int, ...]


@dataclass(frozen=True)
class Balanced:
    """Ties and balances, resolved.

    Attributes:
        store: the labels' store with the ties that the balances took.
        root: int64[labels], the unit of each label.
        frozen: unit -> why it is never dropped.
        rows: int64[parts, n] each: rows of units that lose the same number of units; no unit is in two of them.
    """

    store: Store
    root: NDArray[np.int64]
    frozen: dict[int, str]
    rows: list[NDArray[np.int64]]


def balance(labelled: Labelled) -> Balanced:
    """Resolve the ties and balances of a graph's labels; the labels are left as they are."""
    store = labelled.store.copy()
    while True:
        root, frozen = store.resolve()
        if same := same_parts(owned_units(store, root)):
            store.tie(*torch.tensor(same).unbind(1))
            continue
        linked, clashing = _choose(store, root, frozen, places(labelled, root))
        if not clashing:
            return Balanced(store, root, frozen, _components(linked))
        for labels in clashing:
            store.tie_rows(labels)


def _choose(
    store: Store, root: NDArray[np.int64], frozen: dict[int, str], signature: NDArray[np.uint64]
) -> tuple[dict[_Row, list[_Row]], list[Tensor]]:
    """Decide which balances leave their rows a free choice.

    Returns:
        (each row of these -> the rows that lose the same number of units; int64[parts, size] of each other balance).
    """
    rows_of: dict[int, _Row] = {}
    linked: dict[_Row, list[_Row]] = {}
    clashing: list[Tensor] = []
    for labels, _ in sorted(store.balances, key=lambda balance: balance[0].shape[1]):
        rows = list(dict.fromkeys(map(tuple, root[labels.numpy()].tolist())))
        if _is_settled(rows, frozen):
            continue
        inner = _inner_rows(rows, rows_of)
        if inner and _is_balanced(inner, linked):
            continue
        if inner and len({len(row) for part in inner for row in part}) == 1:
            _link([row for part in inner for row in part], linked)
            continue
        if not _is_free(rows, rows_of, frozen, signature):
            clashing.append(labels)
            continue
        for row in rows:
            rows_of.update(dict.fromkeys(row, row))
        _link(rows, linked)
    return linked, clashing


def _is_settled(rows: list[_Row], frozen: dict[int, str]) -> bool:
    """Whether rows lose the same number of units in any case: at each index they share a unit, or no unit can go.

    Rows that were tied once are settled for good, so each balance is tied at most once and `balance` ends.
    """
    return all(len(set(units)) == 1 or all(u == 0 or u in frozen for u in units) for units in zip(*rows, strict=True))


def _inner_rows(rows: list[_Row], rows_of: dict[int, _Row]) -> list[list[_Row]]:
    """Return, for each row, the rows of earlier balances that it consists of; [] if a row has other units as well."""
    found = []
    for row in rows:
        inner = list(dict.fromkeys(rows_of[unit] for unit in row if unit in rows_of))
        if sorted(unit for part in inner for unit in part) != sorted(row):
            return []
        found.append(inner)
    return found


def _is_balanced(inner: list[list[_Row]], linked: dict[_Row, list[_Row]]) -> bool:
    """Whether rows that consist of inner rows lose the same number already: each has the same mix of components."""
    component = {tuple(row): i for i, rows in enumerate(_components(linked)) for row in rows.tolist()}
    return len({tuple(sorted(component[row] for row in part)) for part in inner}) == 1


def _link(rows: list[_Row], linked: dict[_Row, list[_Row]]) -> None:
    """Note that rows lose the same number of units."""
    for row in rows:
        linked.setdefault(row, []).extend(other for other in (rows[0], rows[-1]) if other != row)
    linked[rows[0]].extend(rows[1:])


def _is_free(
    rows: list[_Row],
    rows_of: dict[int, _Row],
    frozen: dict[int, str],
    signature: NDArray[np.uint64],
) -> bool:
    """Whether each row may choose which units it loses."""
    units = [unit for row in rows for unit in row]
    if len(set(units)) != len(units) or any(unit == 0 or unit in frozen for unit in units):
        return False
    if any(rows_of.get(unit, row) != row for row in rows for unit in row):
        return False
    return all(len({int(signature[unit]) for unit in row}) == 1 for row in rows)


def _components(linked: dict[_Row, list[_Row]]) -> list[NDArray[np.int64]]:
    """Return rows that are linked, directly or through others, as one array each: int64[parts, n]."""
    found, seen = [], set()
    for start in linked:
        if start in seen:
            continue
        rows, queue = [], [start]
        seen.add(start)
        while queue:
            row = queue.pop(0)
            rows.append(row)
            fresh = [other for other in linked[row] if other not in seen]
            seen.update(fresh)
            queue += dict.fromkeys(fresh)
        found.append(np.asarray(rows))
    return found
