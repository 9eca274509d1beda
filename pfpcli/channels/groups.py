"""Groups: the channels that may be dropped, those that may not, and why.

Labels that are tied are one *unit*: a set of indices in several tensors that go together. Units that sit in the same
places form a `Group`, e.g. the output of a convolution, its batch norm and the input of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from torch.fx.node import Node

from pfpcli.channels.flow import Labelled
from pfpcli.channels.heads import droppable, families, owned_units, tie_parts
from pfpcli.channels.labels import Axes
from pfpcli.errors import InputError
from pfpcli.graph.graph import owner


@dataclass(frozen=True)
class Group:
    """Units that sit in the same places; or rows of units of which each has to keep as many (heads, groups).

    Attributes:
        name: the layer that makes the channels, or the input that brings them.
        rows: int64[parts, n], the root label of each unit, in the order of the channels; mostly there is one part.
        width: channels that one unit of every part stands for, in the layer the group is named for.
        frozen: why nothing here may be dropped; empty if it may.
        inexact: the statistic across channels that dropping changes; empty if there is none.
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
        """Units of a part: how often one of every part can be dropped."""
        return int(self.rows.shape[1])

    @property
    def size(self) -> int:
        """Channels in the layer the group is named for."""
        return self.positions * self.width


@dataclass(frozen=True)
class Groups:
    """All groups of a graph.

    Attributes:
        labelled: the graph and its labels.
        root: int64[labels], the unit of each label.
        groups: in the order in which their first channels are made.
        owned: unit of a part -> int64[n], the units that go when it goes; only of parts that may go.
    """

    labelled: Labelled
    root: NDArray[np.int64]
    groups: tuple[Group, ...]
    owned: dict[int, NDArray[np.int64]]

    @property
    def prunable(self) -> list[Group]:
        """The groups channels may be dropped from."""
        return [group for group in self.groups if not group.frozen]

    def alive(self, dropped: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[labels]: all but the dropped units."""
        kept = np.ones(len(self.root), dtype=bool)
        kept[dropped] = False
        for part, units in self.owned.items():
            if not kept[part]:
                kept[units] = False
        return kept[self.root]


def group(labelled: Labelled, freeze: Sequence[str] = (), *, exact_only: bool = False) -> Groups:
    """Gather labels into units and units into groups.

    Args:
        labelled: as `label` returns it.
        freeze: dotted-name globs; the tensors of layers that match stay as they are.
        exact_only: freeze the groups that a statistic is taken across.

    Raises:
        InputError: a pattern matches no layer.
    """
    _freeze_layers(labelled, freeze)
    root, frozen, balanced = balance(labelled)
    inexact = _inexact(labelled, root)
    named = _named_units(labelled, root)
    signature = places(labelled, root)
    readers = _readers(labelled, root)
    produced = _produced(labelled, root)
    row_of = {unit: i for i, rows in enumerate(balanced) for unit in rows.flatten().tolist()}
    gathered: dict[tuple[object, ...], list[int]] = {}
    for unit, (name, width) in named.items():
        reason = frozen.get(unit, "") or ("" if unit in produced else "no layer makes these channels")
        key = (name, int(signature[unit]), reason, inexact.get(unit, ""), width)
        gathered.setdefault((row_of[unit],) if unit in row_of else key, []).append(unit)
    groups = []
    for units in gathered.values():
        rows = balanced[row_of[units[0]]] if units[0] in row_of else np.asarray([units])
        first = [int(unit) for unit in rows[:, 0]]
        unmade = [unit for unit in rows.flatten().tolist() if unit not in produced]
        groups.append(
            Group(
                named[units[0]][0],
                rows,
                sum(named[unit][1] for unit in first if unit in named and named[unit][0] == named[units[0]][0]),
                frozen.get(units[0], "") or ("no layer makes these channels" if unmade else ""),
                inexact.get(units[0], ""),
                tuple(dict.fromkeys(name for unit in first for name in readers.get(unit, ()))),
            )
        )
    owned = owned_units(labelled.store, root)
    droppable_parts = droppable(labelled.store, root, owned, {0, *frozen}, produced)
    for units in families(labelled.store, root, droppable_parts.keys() - named.keys()):
        channels = [unit for part in units for unit in droppable_parts[part].tolist()]
        groups.append(
            Group(
                f"{next(named[unit][0] for unit in channels if unit in named)} (heads)",
                np.asarray([units]),
                1,
                "",
                next((inexact[unit] for unit in [*units, *channels] if unit in inexact), ""),
                tuple(dict.fromkeys(name for unit in channels for name in readers.get(unit, ()))),
            )
        )
    if exact_only:
        groups = [replace(g, frozen=f"--exact-only: {g.inexact}") if g.inexact and not g.frozen else g for g in groups]
    return Groups(labelled, root, tuple(groups), droppable_parts)


def layers(labelled: Labelled) -> list[str]:
    """Names of the modules that own tensors of the graph."""
    return list(dict.fromkeys(owner(node) for node in labelled.graph.nodes if node.op == "get_attr"))


def matching(labelled: Labelled, pattern: str) -> set[str]:
    """The layers that a dotted-name glob names, with the layers inside of those it names."""
    names = layers(labelled)
    return {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}


def _freeze_layers(labelled: Labelled, patterns: Sequence[str]) -> None:
    names = layers(labelled)
    for pattern in patterns:
        matched = matching(labelled, pattern)
        if not matched:
            raise InputError(
                f"--freeze {pattern}: matches none of the {len(names)} layers",
                f"layers are named like {', '.join(names[:3])}; `*` stands for any part of a name",
            )
        for node, axes in labelled.axes.items():
            if node.op == "get_attr" and owner(node) in matched:
                for vector in axes.vectors:
                    labelled.store.freeze(vector, f"--freeze {pattern}")


#: Units that keep as many as those of other rows.
_Row = tuple[int, ...]


def balance(
    labelled: Labelled,
) -> tuple[NDArray[np.int64], dict[int, str], list[NDArray[np.int64]]]:
    """Resolve ties and balances.

    Rows that have to lose as many each stay free in which units they lose, where no unit is in two rows and no row is
    part of another balance's row. Otherwise position j of the rows is tied, which is always right.

    Returns:
        root: int64[labels], the unit of each label.
        frozen: unit -> why.
        balanced: int64[parts, n] each, rows of units that keep as many each; no unit is in two of them.
    """
    while True:
        root, frozen = labelled.store.resolve()
        if tie_parts(labelled.store, owned_units(labelled.store, root)):
            continue
        rows_of: dict[int, _Row] = {}
        linked: dict[_Row, list[_Row]] = {}
        evened = False
        signature = places(labelled, root)
        for labels, _ in sorted(labelled.store.balances, key=lambda balance: balance[0].shape[1]):
            rows = list(dict.fromkeys(map(tuple, root[labels.numpy()].tolist())))
            if len(rows) == 1 or all(u in frozen or u == 0 for row in rows for u in row):
                continue
            inner = _inner_rows(rows, rows_of)
            if inner and _is_balanced(inner, linked):
                continue
            if inner and len({len(row) for part in inner for row in part}) == 1:
                _link([row for part in inner for row in part], linked)
                continue
            if not _is_free(rows, rows_of, frozen, signature):
                labelled.store.tie_rows(labels)
                evened = True
                continue
            for row in rows:
                rows_of.update(dict.fromkeys(row, row))
            _link(rows, linked)
        if not evened:
            return root, frozen, _components(linked)


def _inner_rows(rows: list[_Row], rows_of: dict[int, _Row]) -> list[list[_Row]]:
    """For each row the balanced rows it is made of; empty if one is not made of whole ones."""
    found = []
    for row in rows:
        inner = list(dict.fromkeys(rows_of[unit] for unit in row if unit in rows_of))
        if sorted(unit for part in inner for unit in part) != sorted(row):
            return []
        found.append(inner)
    return found


def _is_balanced(inner: list[list[_Row]], linked: dict[_Row, list[_Row]]) -> bool:
    """Whether rows made of these lose as many as it is: each has as many rows out of every component."""
    component = {tuple(row): i for i, rows in enumerate(_components(linked)) for row in rows.tolist()}
    return len({tuple(sorted(component[row] for row in part)) for part in inner}) == 1


def _link(rows: list[_Row], linked: dict[_Row, list[_Row]]) -> None:
    """Let rows lose as many as each other."""
    for row in rows:
        linked.setdefault(row, []).extend(other for other in (rows[0], rows[-1]) if other != row)
    linked[rows[0]].extend(rows[1:])


def _is_free(
    rows: list[_Row],
    rows_of: dict[int, _Row],
    frozen: dict[int, str],
    signature: NDArray[np.uint64],
) -> bool:
    """Whether each row may choose what it loses."""
    units = [unit for row in rows for unit in row]
    if len(set(units)) != len(units) or any(unit == 0 or unit in frozen for unit in units):
        return False
    if any(rows_of.get(unit, row) != row for row in rows for unit in row):
        return False
    return all(len({int(signature[unit]) for unit in row}) == 1 for row in rows)


def _components(linked: dict[_Row, list[_Row]]) -> list[NDArray[np.int64]]:
    """Rows that are linked, directly or not, one array each."""
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


def _inexact(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for labels, reason in labelled.store.inexact:
        for unit in np.unique(root[labels.numpy()]).tolist():
            reasons.setdefault(unit, reason)
    return reasons


def _named_units(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, tuple[str, int]]:
    """Every unit that a layer makes or reads -> the first layer (or input) it shows up in, and how often there."""
    named: dict[int, tuple[str, int]] = {}

    def add(vector: NDArray[np.int64], name: str) -> None:
        units, counts = np.unique(root[vector], return_counts=True)
        first = {int(u): (name, int(c)) for u, c in zip(units, counts, strict=True)}
        for unit in dict.fromkeys(root[vector].tolist()):
            if unit:
                named.setdefault(unit, first[unit])

    for contraction in labelled.contractions:
        add(contraction.labels.numpy(), _source(labelled, contraction.x))
        if contraction.issued is not None:
            add(contraction.issued.numpy(), owner(contraction.node))
    return named


def _source(labelled: Labelled, x: Node) -> str:
    axes = labelled.axes.get(x)
    return axes.origin if x.op == "placeholder" and isinstance(axes, Axes) else owner(x)


def places(labelled: Labelled, root: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number per label that is equal for units that sit in the same dimensions of the same tensors as often."""
    random = np.random.default_rng(0)
    signature = np.zeros(len(root), dtype=np.uint64)
    seen: set[int] = set()
    vectors = [contraction.labels for contraction in labelled.contractions]
    vectors += [labels for labels, _ in labelled.store.inexact]
    for node, axes in labelled.axes.items():
        if node.op == "get_attr" and id(axes) not in seen:
            seen.add(id(axes))
            vectors += axes.vectors
    for vector in vectors:
        place = random.integers(1, 2**63, dtype=np.uint64)
        np.add.at(signature, root[vector.numpy()], place)
    return signature


def _readers(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, list[str]]:
    readers: dict[int, list[str]] = {}
    for contraction in labelled.contractions:
        name = owner(contraction.node)
        for unit in np.unique(root[contraction.labels.numpy()]).tolist():
            if name not in readers.setdefault(unit, []):
                readers[unit].append(name)
    return readers


def _produced(labelled: Labelled, root: NDArray[np.int64]) -> set[int]:
    """Units that some layer makes."""
    vectors = [c.issued.numpy() for c in labelled.contractions if c.issued is not None]
    return set(np.unique(root[np.concatenate(vectors)]).tolist()) if vectors else set()
