"""Repeats: what torch's ONNX exporter does anew for each file although it is there already.

torch has no setting for this. A release of torch in which a part is named otherwise does that part anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any


@contextmanager
def without_repeats() -> Iterator[None]:
    """Let every ONNX export within a block use one table of functions, and the values that a program has."""
    with ExitStack() as stack:
        stack.enter_context(_one_table())
        stack.enter_context(_known_values())
        yield


@contextmanager
def _one_table() -> Iterator[None]:
    """Build the table of ONNX functions, one for each ATen op, once a process: it takes longer than a small network."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        anew = vars(ONNXRegistry)["from_torchlib"]
    except (ImportError, KeyError):
        yield
        return
    with _replaced(ONNXRegistry, "from_torchlib", anew, staticmethod(_kept(anew))):
        yield


@cache
def _kept(build: classmethod[Any, Any, Any]) -> Any:
    """Return a function that builds a table once, where torch's builds it at each call."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    return cache(build.__get__(None, ONNXRegistry))


@contextmanager
def _known_values() -> Iterator[None]:
    """Take the value of a call from the program instead of computing it, where the exporter promotes types.

    The exporter converts operands whose type is not the one that their call computes in. To know all types, it computes
    the values of all calls, with their free sizes as symbols, which takes half of an export. The program has these
    values. Where an operand is converted, `_maybe_promote_node` runs the call anew and stores its value in the node.
    """
    try:
        from torch.onnx._internal.fx.passes.type_promotion import _TypePromotionInterpreter as Promotion
        from torch.onnx._internal.fx.passes.type_promotion import get_type_promotion_rule

        anew = vars(Promotion)["run_node"]
    except (ImportError, KeyError):
        yield
        return

    def run_node(self: Any, n: Any) -> Any:
        if "val" not in n.meta:
            return anew(self, n)
        with self._set_current_node(n):
            rule = get_type_promotion_rule(n, self.type_promotion_table)
            if rule:
                self._maybe_promote_node(n, rule)
        return n.meta["val"]

    with _replaced(Promotion, "run_node", anew, run_node):
        yield


@contextmanager
def _replaced(owner: type, name: str, before: Any, by: Callable[..., Any] | staticmethod[Any, Any]) -> Iterator[None]:
    """Replace an attribute of a class within a block."""
    setattr(owner, name, by)
    try:
        yield
    finally:
        setattr(owner, name, before)
