"""Heads: parts of a dimension that may go as a whole, with all channels they own.

Where a reshape splits channels into parts (the heads of an attention), each part has a label of its own that owns the
part's channels. Parts that own the same channels at several places are one part. A part may go only where every tensor
its channels are in can do without the whole of it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from numpy.typing import NDArray

from pfpcli.channels.labels import Store


def owned_units(store: Store, root: NDArray[np.int64]) -> dict[int, set[int]]:
    """Unit of each part -> the units it owns."""
    owned: dict[int, set[int]] = {}
    for part, labels in store.owned:
        owned.setdefault(int(root[part]), set()).update(root[labels.numpy()].tolist())
    owned.pop(0, None)
    return owned


def tie_parts(store: Store, owned: dict[int, set[int]]) -> bool:
    """Tie parts of which one owns nothing that the other does not; False if there are none."""
    alike: dict[frozenset[int], list[int]] = {}
    for part, units in owned.items():
        alike.setdefault(frozenset(units), []).append(part)
    # detectors have a part for each place of an image, and few sets of channels among them
    same = [(first, other) for first, *others in alike.values() for other in others]
    owners = _owners(owned, [first for first, *_ in alike.values()])
    pairs = {(a, b) for parts in owners.values() for a in parts for b in parts if a < b}
    same += [(a, b) for a, b in sorted(pairs) if owned[a] <= owned[b] or owned[b] <= owned[a]]
    if same:
        store.tie(*torch.tensor(same).unbind(1))
    return bool(same)


def droppable(
    store: Store,
    root: NDArray[np.int64],
    owned: dict[int, set[int]],
    immortal: Collection[int],
    produced: set[int],
) -> dict[int, NDArray[np.int64]]:
    """The parts that may go, and what goes with each.

    Args:
        store: what was said about the labels.
        root: int64[labels], the unit of each label.
        owned: as `owned_units` returns it.
        immortal: units that never go.
        produced: units that a layer makes.
    """
    may_go = {
        part
        for part, units in owned.items()
        if part not in immortal and units <= produced and not any(unit in immortal for unit in units)
    }
    for parts in _owners(owned, may_go).values():
        if len(parts) > 1:  # dropping one would take channels out of the others
            may_go.difference_update(parts)
    for labels, fixed in store.balances:
        rows = root[labels.numpy()]
        involved = set(rows.flatten().tolist())
        for part in [part for part in may_go if not owned[part].isdisjoint(involved)]:
            lost = np.isin(rows, list(owned[part])).sum(1)
            is_whole = not fixed and np.isin(lost, (0, rows.shape[1])).all()
            if not is_whole and len(set(lost.tolist())) > 1:
                may_go.discard(part)
    return {part: np.asarray(sorted(owned[part])) for part in sorted(may_go)}


def _owners(owned: dict[int, set[int]], parts: Collection[int]) -> dict[int, list[int]]:
    """Unit -> the parts among these that own it."""
    owners: dict[int, list[int]] = {}
    for part in parts:
        for unit in owned[part]:
            owners.setdefault(unit, []).append(part)
    return owners


def families(store: Store, root: NDArray[np.int64], parts: Collection[int]) -> list[list[int]]:
    """The parts among these that lie along one dimension, in the order of their indices; at least two."""
    found: dict[int, list[int]] = {}
    for vector in store.part_vectors:
        units = [unit for unit in dict.fromkeys(root[vector.numpy()].tolist()) if unit in parts]
        known = next((found[unit] for unit in units if unit in found), [])
        known += [unit for unit in units if unit not in found]
        found.update(dict.fromkeys(known, known))
    return [list(units) for units in dict.fromkeys(map(tuple, found.values())) if len(units) > 1]
