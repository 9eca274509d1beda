"""Role: what one output of a network says, or one part of an output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """A part of an output along one dimension; the end is not part of it."""

    dim: int
    start: int
    stop: int


@dataclass(frozen=True)
class Anchors:
    """The anchors of a detector's map: a dimension of A·K numbers is A anchors with K numbers each."""

    dim: int
    count: int


@dataclass(frozen=True)
class Role:
    """What an output says.

    Attributes:
        output: its number among the floating-point outputs of the network.
        name: its name, with the range of a part: "output0", "output0[4:84]".
        kind: one of `pfpcli.outputs.kinds.KINDS`.
        axis: the dimension of the classes, behind the split by anchors; None for kinds without classes.
        why: how the kind was told, for people.
        part: which part of the output; None for the whole output.
        anchors: how the dimension of the numbers is split; None where it is not.
    """

    output: int
    name: str
    kind: str
    axis: int | None
    why: str
    part: Part | None = None
    anchors: Anchors | None = None
