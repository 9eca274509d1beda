"""Units: labels that are tied to each other, and what the layers of a graph say about each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.fx.node import Node

from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labels import Axes
from pfpcli.graph.graph import owner


@dataclass(frozen=True)
class Units:
    """Facts about the units of a graph. A unit is named by its root, the smallest of its labels.

    Attributes:
        named: unit -> (the first layer that makes or reads it, or the input that holds it; how often it occurs there).
        places: uint64[labels], from `places`.
        inexact: unit -> the statistic across channels that changes when it is dropped.
        readers: unit -> the names of the layers that read it.
        produced: the units that a layer makes.
    """

    named: dict[int, tuple[str, int]]
    places: NDArray[np.uint64]
    inexact: dict[int, str]
    readers: dict[int, list[str]]
    produced: set[int]


def describe_units(labelled: Labelled, root: NDArray[np.int64]) -> Units:
    """Gather the facts about all units; root: int64[labels], the unit of each label."""
    return Units(
        _named(labelled, root),
        places(labelled, root),
        _inexact(labelled, root),
        _readers(labelled, root),
        _produced(labelled, root),
    )


def places(labelled: Labelled, root: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return a number for each unit: equal for units that occur equally often in the same dimensions of all tensors."""
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


def _named(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, tuple[str, int]]:
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


def _inexact(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, str]:
    reasons: dict[int, str] = {}
    for labels, reason in labelled.store.inexact:
        for unit in np.unique(root[labels.numpy()]).tolist():
            reasons.setdefault(unit, reason)
    return reasons


def _readers(labelled: Labelled, root: NDArray[np.int64]) -> dict[int, list[str]]:
    readers: dict[int, list[str]] = {}
    for contraction in labelled.contractions:
        name = owner(contraction.node)
        for unit in np.unique(root[contraction.labels.numpy()]).tolist():
            if name not in readers.setdefault(unit, []):
                readers[unit].append(name)
    return readers


def _produced(labelled: Labelled, root: NDArray[np.int64]) -> set[int]:
    vectors = [c.issued.numpy() for c in labelled.contractions if c.issued is not None]
    return set(np.unique(root[np.concatenate(vectors)]).tolist()) if vectors else set()
