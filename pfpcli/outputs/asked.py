"""Asked: what the user says about the outputs of a network. This module does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from pfpcli.errors import InputError
from pfpcli.outputs.kinds import KINDS

#: Name of a task -> the kind of its outputs where the ops do not say more.
TASKS = {
    "classify": "logits",
    "segment": "logits",
    "detect": "regression",
    "recognise": "logits",
    "regress": "regression",
    "image": "image",
    "embed": "embedding",
}


@dataclass(frozen=True)
class Asked:
    """What the user says about the outputs.

    Attributes:
        task: one of `TASKS`, or None.
        named: name of an output -> (kind, dimension of the classes or None).
    """

    task: str | None = None
    named: tuple[tuple[str, str, int | None], ...] = ()


def parse(texts: Sequence[str], task: str | None) -> Asked:
    """Read `NAME=ROLE[:AXIS]` of each output, and the task.

    Raises:
        InputError: a text has another form, or names no role.
    """
    named = []
    for text in texts:
        name, equals, rest = text.rpartition("=")
        kind, colon, axis = rest.partition(":")
        hint = f"for example `--output {name or 'logits'}=probabilities:1`"
        if not (name and equals and kind):
            raise InputError(f"--output {text}: expected NAME=ROLE or NAME=ROLE:AXIS", hint)
        if kind not in KINDS:
            close = get_close_matches(kind, KINDS, 1)
            raise InputError(
                f"--output {text}: no role is called {kind}, expected one of {', '.join(KINDS)}",
                f"did you mean {close[0]}?" if close else hint,
            )
        if colon and not axis.isdigit():
            raise InputError(f"--output {text}: the axis is {axis!r}, expected a number from 1 up", hint)
        named.append((name, kind, int(axis) if colon else None))
    return Asked(task, tuple(named))
