"""Groups: which channels may be dropped, which may not, and why.

Labels that are tied are one *unit*: indices in several tensors that are dropped together. Units that occur in the same
places form a `Group`, e.g. the output channels of a convolution with its batch norm and the input of the next layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.balance import Balanced, balance
from pfpcli.channels.freezing import freeze_layers
from pfpcli.channels.heads import droppable, families, owned_units
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.places import EVERYWHERE, INSIDE
from pfpcli.channels.residual_blocks import inside
from pfpcli.channels.units import Units, describe_units
from pfpcli.graph.invariant import InvariantError

_NOT_MADE = "no layer makes these channels"
_OUTSIDE = "--where inside: not inside of a residual block"


@dataclass(frozen=True)
class Group:
    """Units that occur in the same places, or rows of units of which each keeps the same number (heads, groups).

    Attributes:
        name: the layer that makes the channels, or the input that holds them.
        rows: int64[parts, n], the root label of each unit, in the order of the channels; most groups have one part.
        width: channels of the named layer that are dropped with one unit of every part.
        frozen: why no unit may be dropped; empty if units may be dropped.
        inexact: the statistic across channels that changes when units are dropped; empty if there is none.
        readers: names of the layers that read the channels.
    """

    name: str
    rows: NDArray[np.int64]
    width: int
    frozen: str
    inexact: str
    readers: tuple[str, ...]

    @property
    def units(self) -> NDArray[np.int64]:
        """int64[parts * n]: all units."""
        return self.rows.reshape(-1)

    @property
    def positions(self) -> int:
        """Number of units in a part, which is how often one unit of every part can be dropped."""
        return int(self.rows.shape[1])

    @property
    def size(self) -> int:
        """Number of channels of the named layer."""
        return self.positions * self.width


@dataclass(frozen=True)
class Groups:
    """All groups of a graph.

    Attributes:
        labelled: the graph and its labels.
        root: int64[labels], the unit of each label.
        groups: in the order in which their first channels are made.
        owned: unit of a part -> int64[n], the units that are dropped with it; only parts that may be dropped.
    """

    labelled: Labelled
    root: NDArray[np.int64]
    groups: tuple[Group, ...]
    owned: dict[int, NDArray[np.int64]]

    @property
    def prunable(self) -> list[Group]:
        """The groups whose channels may be dropped."""
        return [group for group in self.groups if not group.frozen]

    def alive(self, dropped: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the labels that are kept when some units are dropped: bool[labels]."""
        kept = np.ones(len(self.root), dtype=bool)
        kept[dropped] = False
        for part, units in self.owned.items():
            if not kept[part]:
                kept[units] = False
        return kept[self.root]

    def check(self) -> None:
        """Check what every step after grouping relies on.

        Tied labels have one unit; every unit of a group exists and is in no other group; label 0 is in none; no unit of
        a prunable group is frozen; a part that may be dropped, and the units that it owns, exist and are not frozen.

        Raises:
            InvariantError: one of these does not hold.
        """
        root, store = self.root, self.labelled.store
        if root.shape != (store.count,):
            raise InvariantError(f"root: has shape {root.shape}, expected {(store.count,)}")
        _check_each(root[root] == root, "label {}: its root is not a root, expected root[root] == root")
        first, second = store.ties.numpy()
        _check_each(root[first] == root[second], "tie {}: its two labels are in two units, expected one")
        frozen = np.zeros(len(root), dtype=bool)
        frozen[root[store.frozen.numpy()]] = True
        group_of = np.full(len(root), -1)
        for i, group in enumerate(self.groups):
            _check_units(f"group {group.name}", group.units, root, None if group.frozen else frozen)
            units, counts = np.unique(group.units, return_counts=True)
            for unit in units[(counts > 1) | (group_of[units] >= 0)][:1].tolist():
                other = self.groups[group_of[unit]].name if group_of[unit] >= 0 else group.name
                raise InvariantError(f"group {group.name}: unit {unit} is in group {other} already, expected in one")
            group_of[units] = i
        for part, owned in self.owned.items():
            _check_units(f"part {part}", np.append(owned, part), root, frozen)


def _check_each(holds: NDArray[np.bool_], message: str) -> None:
    """Raise an InvariantError with the first index at which a condition does not hold."""
    if not holds.all():
        raise InvariantError(message.format(int(np.flatnonzero(~holds)[0])))


def _check_units(
    where: str, units: NDArray[np.int64], root: NDArray[np.int64], frozen: NDArray[np.bool_] | None
) -> None:
    """Raise an InvariantError if one of these is no unit, or is frozen although it may be dropped."""
    exists = (units > 0) & (units < len(root))
    exists[exists] = root[units[exists]] == units[exists]
    if not exists.all():
        raise InvariantError(f"{where}: {units[~exists][0]} is no unit, expected a root label from 1 on")
    if frozen is not None and frozen[units].any():
        raise InvariantError(f"{where}: unit {units[frozen[units]][0]} is frozen, expected units that may be dropped")


def group(
    labelled: Labelled, freeze: Sequence[str] = (), *, exact_only: bool = False, where: str = EVERYWHERE
) -> Groups:
    """Gather labels into units and units into groups.

    Args:
        labelled: from `label`; it is left as it is.
        freeze: what may not be cut, as in `freezing.freeze_layers`.
        exact_only: whether groups that a statistic across channels is taken over are frozen.
        where: one of `places.PLACES`: whether all groups but those inside of residual blocks are frozen.

    Raises:
        InputError: a name to freeze matches no layer.
    """
    balanced = balance(freeze_layers(labelled, freeze))
    labelled, root = replace(labelled, store=balanced.store), balanced.root
    units = describe_units(labelled, root)
    owned = owned_units(labelled.store, root)
    parts = droppable(labelled.store, root, owned, {0, *balanced.frozen}, units.produced)
    heads = families(labelled.store, root, parts.keys() - units.named.keys())
    groups = [*_channel_groups(units, balanced), *(_head_group(each, parts, units) for each in heads)]
    if exact_only:
        groups = [replace(g, frozen=f"--exact-only: {g.inexact}") if g.inexact and not g.frozen else g for g in groups]
    if where == INSIDE:
        is_inside = inside(labelled, root)
        groups = [g if g.frozen or is_inside[g.units].all() else replace(g, frozen=_OUTSIDE) for g in groups]
    found = Groups(labelled, root, tuple(groups), parts)
    found.check()
    return found


def _channel_groups(units: Units, balanced: Balanced) -> list[Group]:
    """Return groups of units that occur in the same places for the same reasons, and groups of rows in balance."""
    row_of = {unit: i for i, rows in enumerate(balanced.rows) for unit in rows.flatten().tolist()}
    gathered: dict[tuple[object, ...], list[int]] = {}
    for unit, (name, width) in units.named.items():
        reason = balanced.frozen.get(unit, "") or ("" if unit in units.produced else _NOT_MADE)
        key = (name, int(units.places[unit]), reason, units.inexact.get(unit, ""), width)
        gathered.setdefault((row_of[unit],) if unit in row_of else key, []).append(unit)
    return [
        _channel_group(
            balanced.rows[row_of[members[0]]] if members[0] in row_of else np.asarray([members]),
            members[0],
            units,
            balanced.frozen,
        )
        for members in gathered.values()
    ]


def _channel_group(rows: NDArray[np.int64], unit: int, units: Units, frozen: dict[int, str]) -> Group:
    """Return the group of some rows; its name and its reasons are those of one unit."""
    name, _ = units.named[unit]
    first = rows[:, 0].tolist()
    named = [units.named[each] for each in first if each in units.named]
    is_made = units.produced.issuperset(rows.flatten().tolist())
    return Group(
        name,
        rows,
        sum(width for layer, width in named if layer == name),
        frozen.get(unit, "") or ("" if is_made else _NOT_MADE),
        units.inexact.get(unit, ""),
        tuple(dict.fromkeys(reader for each in first for reader in units.readers.get(each, ()))),
    )


def _head_group(heads: list[int], owned: dict[int, NDArray[np.int64]], units: Units) -> Group:
    """Return the group of parts that may be dropped as a whole."""
    channels = [unit for part in heads for unit in owned[part].tolist()]
    return Group(
        f"{next(units.named[unit][0] for unit in channels if unit in units.named)} (heads)",
        np.asarray([heads]),
        1,
        "",
        next((units.inexact[unit] for unit in [*heads, *channels] if unit in units.inexact), ""),
        tuple(dict.fromkeys(reader for unit in channels for reader in units.readers.get(unit, ()))),
    )
