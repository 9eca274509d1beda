"""Conversion: a float network to the precision in which it is timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx


@dataclass(frozen=True)
class Conversion:
    """A precision, and what writes a float network in it.

    Attributes:
        precision: its name.
        convert: returns a network whose operators take the time that they take in that precision.
    """

    precision: str
    convert: Callable[[onnx.ModelProto], onnx.ModelProto]


#: Networks as they are.
FLOAT32 = Conversion("float32", lambda model: model)
