"""Operators: what a runtime computes in one kernel.

A convolution with what is fused behind it, an element-wise op, a pooling: each is an operator. Two layers with the same
operator take the same time.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Operator:
    """One operator with all its sizes.

    Attributes:
        kind: the name of the ATen op, without its overload.
        shapes: of the tensors that it reads.
        stored: how many of them, the last ones, are constants.
        made: the shape of its result.
        settings: (name, value) of the settings that its time depends on.
        then: the element-wise ops behind it that a runtime may fuse with it.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    stored: int
    made: tuple[int, ...]
    settings: tuple[tuple[str, Any], ...] = ()
    then: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The operator as a string, for tables."""
        return json.dumps(asdict(self), separators=(",", ":"))
