"""Freezing: the channels that the user names, which no cut may drop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from torch import Tensor

from pfpcli.channels.labelled import Labelled
from pfpcli.errors import InputError
from pfpcli.graph.graph import owner

#: What follows the name of a layer where only one side of it is frozen.
SIDES = READ, MADE = (":in", ":out")


def freeze_layers(labelled: Labelled, patterns: Sequence[str]) -> Labelled:
    """Return the labels with those of matching layers frozen.

    Args:
        labelled: the graph and its labels.
        patterns: dotted-name globs. `NAME` freezes all channels of the tensors of a layer: those that it makes and
            those that it reads. `NAME:out` freezes what it makes, `NAME:in` what it reads.

    Raises:
        InputError: a pattern matches no layer.
    """
    names, store = _layers(labelled), labelled.store.copy()
    for pattern in patterns:
        name, side = split_side(pattern)
        matched = matching(labelled, name)
        if not matched:
            raise InputError(
                f"--freeze {pattern}: matches none of the {len(names)} layers",
                f"layers are named like {', '.join(names[:3])}; `*` stands for any part of a name",
            )
        for vector in _vectors(labelled, matched, side):
            store.freeze(vector, f"--freeze {pattern}")
    return replace(labelled, store=store)


def split_side(pattern: str) -> tuple[str, str]:
    """Return the name in a pattern, and one of `SIDES`, or "" for both."""
    side = next((side for side in SIDES if pattern.endswith(side)), "")
    return pattern.removesuffix(side), side


def matching(labelled: Labelled, pattern: str) -> set[str]:
    """Return the layers whose dotted names match a glob, with the layers inside of them."""
    names = _layers(labelled)
    return {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")}


def _layers(labelled: Labelled) -> list[str]:
    """Return the names of the modules that own tensors of the graph."""
    return list(dict.fromkeys(owner(node) for node in labelled.graph.nodes if node.op == "get_attr"))


def _vectors(labelled: Labelled, layers: set[str], side: str) -> Iterator[Tensor]:
    """Yield the labels of one side of layers, or of both."""
    calls = [each for each in labelled.contractions if each.weight is not None and owner(each.weight) in layers]
    two_sided = {owner(each.weight) for each in calls if each.weight is not None and each.issued is not None}
    if side:
        for call in calls:
            labels = call.labels if side == READ else call.issued
            if labels is not None:
                yield labels
    # a norm or a depthwise convolution has one set of channels
    for node, axes in labelled.axes.items():
        if node.op == "get_attr" and owner(node) in (layers - two_sided if side else layers):
            yield from axes.vectors
