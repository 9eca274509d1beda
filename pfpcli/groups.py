"""Groups: the channels that may be dropped, those that may not, and why.

Labels that are tied are one *unit*: a set of indices in several tensors that go together. Units that sit in the same
places form a `Group`, e.g. the output of a convolution, its batch norm and the input of the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from torch.fx.node import Node

from pfpcli.errors import InputError
from pfpcli.labels import Axes, Labelled
from pfpcli.trace import owner


@dataclass(frozen=True)
class Group:
    """Units that sit in the same places.

    Attributes:
        name: the layer that makes the channels, or the input that brings them.
        units: int64[n], the root label of each unit, in the order of the channels.
        width: channels that go with one unit in the layer it is named for.
        frozen: why nothing here may be dropped; empty if it may.
        inexact: the statistic across channels that dropping changes; empty if there is none.
        readers: names of the layers that read the channels.
    """

    name: str
    units: NDArray[np.int64]
    width: int
    frozen: str
    inexact: str
    readers: tuple[str, ...]

    @property
    def size(self) -> int:
        """Channels in the layer the group is named for."""
        return len(self.units) * self.width


@dataclass(frozen=True)
class Groups:
    """All groups of a graph.

    Attributes:
        labelled: the graph and its labels.
        root: int64[labels], the unit of each label.
        groups: in the order in which their first channels are made.
    """

    labelled: Labelled
    root: NDArray[np.int64]
    groups: tuple[Group, ...]

    @property
    def prunable(self) -> list[Group]:
        """The groups channels may be dropped from."""
        return [group for group in self.groups if not group.frozen]

    def alive(self, dropped: NDArray[np.int64]) -> NDArray[np.bool_]:
        """bool[labels]: all but the dropped units."""
        kept = np.ones(len(self.root), dtype=bool)
        kept[dropped] = False
        return kept[self.root]


def group(labelled: Labelled, freeze: Sequence[str] = ()) -> Groups:
    """Gather labels into units and units into groups.

    Args:
        labelled: as `label` returns it.
        freeze: dotted-name globs; the tensors of layers that match stay as they are.

    Raises:
        InputError: a pattern matches no layer.
    """
    _freeze_layers(labelled, freeze)
    root, frozen = labelled.store.resolve()
    inexact = _inexact(labelled, root)
    named = _named_units(labelled, root)
    signature = _places(labelled, root)
    readers = _readers(labelled, root)
    produced = _produced(labelled, root)
    gathered: dict[tuple[str, int, str, str, int], list[int]] = {}
    for unit, (name, width) in named.items():
        reason = frozen.get(unit, "") or ("" if unit in produced else "no layer makes these channels")
        gathered.setdefault((name, int(signature[unit]), reason, inexact.get(unit, ""), width), []).append(unit)
    groups = tuple(
        Group(name, np.asarray(units), width, reason, statistic, tuple(readers.get(units[0], ())))
        for (name, _, reason, statistic, width), units in gathered.items()
    )
    return Groups(labelled, root, groups)


def layers(labelled: Labelled) -> list[str]:
    """Names of the modules that own tensors of the graph."""
    return list(dict.fromkeys(owner(node) for node in labelled.graph.nodes if node.op == "get_attr"))


def _freeze_layers(labelled: Labelled, patterns: Sequence[str]) -> None:
    names = layers(labelled)
    for pattern in patterns:
        matched = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}
        if not matched:
            raise InputError(
                f"--freeze {pattern}: matches none of the {len(names)} layers",
                f"layers are named like {', '.join(names[:3])}; `*` stands for any part of a name",
            )
        for node, axes in labelled.axes.items():
            if node.op == "get_attr" and owner(node) in matched:
                for vector in axes.labels.values():
                    labelled.store.freeze(vector, f"--freeze {pattern}")


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


def _places(labelled: Labelled, root: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number per label that is equal for units that sit in the same dimensions of the same tensors as often."""
    random = np.random.default_rng(0)
    signature = np.zeros(len(root), dtype=np.uint64)
    seen: set[int] = set()
    vectors = [contraction.labels for contraction in labelled.contractions]
    vectors += [labels for labels, _ in labelled.store.inexact]
    for node, axes in labelled.axes.items():
        if node.op == "get_attr" and id(axes) not in seen:
            seen.add(id(axes))
            vectors += axes.labels.values()
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
