"""torch's table of ONNX functions, one for each ATen op: built once a process.

torch builds the table anew for each file, which takes longer than a small network, and a run writes two files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def kept_table() -> Iterator[None]:
    """Let every ONNX export within a block use one table.

    torch has no setting for this. A release of torch that keeps the table elsewhere builds it anew, as without this.
    """
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        anew = vars(ONNXRegistry)["from_torchlib"]
    except (ImportError, KeyError):
        yield
        return
    registry: Any = ONNXRegistry
    registry.from_torchlib = staticmethod(_kept(anew))
    try:
        yield
    finally:
        registry.from_torchlib = anew


@cache
def _kept(build: classmethod[Any, Any, Any]) -> Any:
    """Return a function that builds a table once, where torch's builds it at each call."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return cache(build.__get__(None, ONNXRegistry))
