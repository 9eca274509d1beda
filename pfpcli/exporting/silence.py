"""Silence for the tools of onnxruntime, which print, log and warn from Python and from C++."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import onnxruntime

from pfpcli.graph.quiet import quiet

#: Levels of onnxruntime's own log: its default, and errors alone.
_WARNINGS, _ERRORS = 2, 3


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Discard what the tools of onnxruntime say within a block; what they cannot do raises an exception."""
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with quiet():
            yield
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
