"""Heads: parts of a dimension that may be dropped as a whole, with all channels that they own.

Where a reshape splits channels into parts (the heads of an attention), each part has a label of its own, which owns the
labels of the part's channels. Labels that own the same channels in several tensors belong to one part. A part may be
dropped only if every tensor that holds its channels stays valid without the whole part.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.labels import Store


def owned_units(store: Store, root: NDArray[np.int64]) -> dict[int, set[int]]:
    """Return the units that the unit of each part owns."""
    owned: dict[int, set[int]] = {}
    for part, labels in store.owned:
        owned.setdefault(int(root[part]), set()).update(root[labels.numpy()].tolist())
    owned.pop(0, None)
    return owned


def same_parts(owned: dict[int, set[int]]) -> list[tuple[int, int]]:
    """Return pairs of parts of which one owns all that the other one owns: they are one part."""
    alike: dict[frozenset[int], list[int]] = {}
    for part, units in owned.items():
        alike.setdefault(frozenset(units), []).append(part)
    # a detector has a part for each position of an image, but few different sets of channels
    same = [(first, other) for first, *others in alike.values() for other in others]
    owners = _owners(owned, [first for first, *_ in alike.values()])
    pairs = {(a, b) for parts in owners.values() for a in parts for b in parts if a < b}
    return same + [(a, b) for a, b in sorted(pairs) if owned[a] <= owned[b] or owned[b] <= owned[a]]


def droppable(
    store: Store,
    root: NDArray[np.int64],
    owned: dict[int, set[int]],
    immortal: Collection[int],
    produced: set[int],
) -> dict[int, NDArray[np.int64]]:
    """Return the parts that may be dropped, and the units that are dropped with each: int64[n], sorted.

    Args:
        store: what was said about the labels.
        root: int64[labels], the unit of each label.
        owned: from `owned_units`.
        immortal: units that are never dropped.
        produced: units that a layer makes.
    """
    found = {
        part
        for part, units in owned.items()
        if part not in immortal and units <= produced and not any(unit in immortal for unit in units)
    }
    for parts in _owners(owned, found).values():
        if len(parts) > 1:  # dropping one of them would take channels out of the others
            found.difference_update(parts)
    for labels, fixed in store.balances:
        rows = root[labels.numpy()]
        involved = set(rows.flatten().tolist())
        for part in [part for part in found if not owned[part].isdisjoint(involved)]:
            lost = np.isin(rows, list(owned[part])).sum(1)
            is_whole = not fixed and np.isin(lost, (0, rows.shape[1])).all()
            if not is_whole and len(set(lost.tolist())) > 1:
                found.discard(part)
    return {part: np.asarray(sorted(owned[part])) for part in sorted(found)}


def _owners(owned: dict[int, set[int]], parts: Collection[int]) -> dict[int, list[int]]:
    """Return, for each unit, the given parts that own it."""
    owners: dict[int, list[int]] = {}
    for part in parts:
        for unit in owned[part]:
            owners.setdefault(unit, []).append(part)
    return owners


def families(store: Store, root: NDArray[np.int64], parts: Collection[int]) -> list[list[int]]:
    """Return the given parts that lie along one dimension, in the order of their indices; at least two each."""
    found: dict[int, list[int]] = {}
    for vector in store.part_vectors:
        units = [unit for unit in dict.fromkeys(root[vector.numpy()].tolist()) if unit in parts]
        known = next((found[unit] for unit in units if unit in found), [])
        known += [unit for unit in units if unit not in found]
        found.update(dict.fromkeys(known, known))
    return [list(units) for units in dict.fromkeys(map(tuple, found.values())) if len(units) > 1]
