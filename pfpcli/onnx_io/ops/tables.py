"""The tables of ONNX ops: `register` adds a reading rule, `rewriter` adds a function that rewrites a node.

No table takes an op twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx
from numpy.typing import NDArray

from pfpcli.onnx_io.ops.call import Call, Value

Result = Value | tuple[Value, ...]
#: Computes a node: its one output, or all of its outputs.
OnnxRule = Callable[[Call], Result]
_Rule = TypeVar("_Rule", bound=OnnxRule)
RULES: dict[str, OnnxRule] = {}
#: The rules of nodes whose inputs are all `Known`, some with free sizes. An op without one uses its rule in RULES.
KNOWN: dict[str, OnnxRule] = {}


def register(*names: str, known: bool = False) -> Callable[[_Rule], _Rule]:
    """Register a function as the reading rule of ops.

    Args:
        names: types of ONNX nodes.
        known: register the rule of nodes whose inputs are all `Known`.

    Raises:
        ValueError: one of the ops has a rule already.
    """

    def add(rule: _Rule) -> _Rule:
        _add(KNOWN if known else RULES, names, rule)
        return rule

    return add


@dataclass(frozen=True)
class NodeEdit:
    """A node of the file that a rewriter changes to the sizes of the cut network.

    Attributes:
        node: the node; methods change it in place.
        calls: the ATen calls that the node was read as, from the graph of the cut network.
        constant_of: returns a constant of the file by its name, None for a computed value.
        add: adds a constant under a name that is not taken yet, and returns that name.
    """

    node: onnx.NodeProto
    calls: list[Any]
    constant_of: Callable[[str], NDArray[Any] | None]
    add: Callable[[NDArray[Any], str], str]

    def call(self, name: str) -> Any:
        """Return the first call whose target contains `name`."""
        return next(each for each in self.calls if name in str(each.target))

    def constant(self, index: int) -> list[Any] | None:
        """Return the numbers of a constant input, None if the input is computed or left out."""
        is_there = index < len(self.node.input) and self.node.input[index]
        found = self.constant_of(self.node.input[index]) if is_there else None
        return None if found is None else found.reshape(-1).tolist()

    def set_attribute(self, name: str, value: Any) -> None:
        """Set an attribute of the node."""
        self.drop_attribute(name)
        self.node.attribute.append(onnx.helper.make_attribute(name, value))

    def drop_attribute(self, name: str) -> None:
        """Remove an attribute of the node, if it has it."""
        others = [each for each in self.node.attribute if each.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend(others)

    def set_input(self, index: int, numbers: list[int]) -> None:
        """Make an input a new constant of whole numbers; other nodes keep theirs."""
        name = f"{self.node.name or self.node.output[0]}_{index}"
        self.node.input[index] = self.add(np.asarray(numbers, np.int64), name)

    def set_numbers(self, index: int, attribute: str, numbers: list[int]) -> None:
        """Set numbers that newer opsets have as an input and older opsets as an attribute."""
        if any(each.name == attribute for each in self.node.attribute):
            self.set_attribute(attribute, numbers)
        else:
            self.node.input.extend([""] * (index + 1 - len(self.node.input)))
            self.set_input(index, numbers)


#: Rewrites the attributes and inputs of a node to the sizes of the cut network.
Rewriter = Callable[[NodeEdit], None]
REWRITERS: dict[str, Rewriter] = {}


def rewriter(*names: str) -> Callable[[Rewriter], Rewriter]:
    """Register a function that rewrites the nodes of ops.

    Args:
        names: types of ONNX nodes.

    Raises:
        ValueError: one of the ops has a rewriter already.
    """

    def add(rewrite: Rewriter) -> Rewriter:
        _add(REWRITERS, names, rewrite)
        return rewrite

    return add


def _add(table: dict[str, Any], names: tuple[str, ...], entry: Any) -> None:
    for name in names:
        if name in table:
            raise ValueError(f"{name} is registered already")
    table.update(dict.fromkeys(names, entry))
