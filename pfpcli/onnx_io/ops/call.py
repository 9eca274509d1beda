"""One node of an ONNX graph, as its rule sees it: its attributes, and its inputs as they have come to by then.

A value is a torch tensor, or `Known`: a small constant, or something computed from sizes alone. Arithmetic on sizes is
done at once, with numbers that may stand for free sizes, so that none of it is left in what is traced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

#: ONNX's number of a type -> torch's.
TYPES: dict[int, torch.dtype] = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.BOOL: torch.bool,
}


#: Numpy's type -> torch's; looked up, since a call of torch would be written down with the network.
_OF_NUMPY: dict[Any, torch.dtype] = {
    np.dtype(name): getattr(torch, name)
    for name in ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")
}
_TO_NUMPY: dict[torch.dtype, Any] = {**{kind: name for name, kind in _OF_NUMPY.items()}, torch.bfloat16: np.float32}


@dataclass(frozen=True)
class Known:
    """A value that no input of the network has a part in, other than by its sizes.

    Attributes:
        value: an array of numbers; of objects, where they may stand for free sizes.
        dtype: what it is in the file.
        tensor: the parameter or buffer that it came from, if it did.
    """

    value: NDArray[Any]
    dtype: torch.dtype
    tensor: Tensor | None = None

    @classmethod
    def of(cls, numbers: Any, dtype: torch.dtype) -> Known:
        """Of numbers in lists or arrays."""
        return cls(np.asarray(numbers, object), dtype)

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> Known:
        """Of an array as numpy has it."""
        return cls(array, _OF_NUMPY.get(array.dtype, torch.bfloat16))

    @property
    def is_concrete(self) -> bool:
        """Whether these are all numbers, and none stands for a free size."""
        return not any(isinstance(x, _FREE) for x in self.value.reshape(-1).tolist())

    def numbers(self) -> NDArray[Any]:
        """An array of the type that it has in the file, if it is concrete."""
        return self.value.astype(_TO_NUMPY[self.dtype])

    def whole(self) -> list[Any]:
        """As whole numbers, in one row."""
        return [int(x) if isinstance(x, (int, float, np.generic)) else x for x in self.value.reshape(-1).tolist()]

    def as_tensor(self) -> Tensor:
        """As a tensor; of sizes that are free, as one that follows them."""
        if self.tensor is not None:
            return self.tensor
        numbers = self.value.reshape(-1).tolist()
        if any(isinstance(x, torch.SymInt) for x in numbers):
            made = torch.stack([torch.scalar_tensor(x, dtype=self.dtype) for x in numbers])
            return made.view(self.value.shape)
        return torch.tensor(numbers, dtype=self.dtype).view(self.value.shape)


#: Numbers that stand for free sizes, or come of such.
_FREE = (torch.SymInt, torch.SymFloat, torch.SymBool)

Value = Tensor | Known | None


@dataclass
class Call:
    """A node that is about to be computed.

    Attributes:
        op: its type, e.g. "Conv".
        name: of the node, or of its first output.
        version: the opset that says what it means.
        attributes: name -> number, string, list or tensor.
        inputs: None where an optional one is left out.
        outputs: how many are asked for.
    """

    op: str
    name: str
    version: int
    attributes: dict[str, Any]
    inputs: list[Value]
    outputs: int = 1

    def has(self, index: int) -> bool:
        """Whether an input is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        """An input as a tensor."""
        value = self.inputs[index]
        assert value is not None, f"{self.op} {self.name}: input {index} is missing"
        return value.as_tensor() if isinstance(value, Known) else value

    def tensors(self) -> list[Tensor]:
        """All inputs as tensors."""
        return [self.tensor(i) for i in range(len(self.inputs))]

    def optional(self, index: int) -> Tensor | None:
        """An input as a tensor, None if it is left out."""
        return self.tensor(index) if self.has(index) else None

    def operand(self, index: int) -> Any:
        """An input as a tensor, or as a number where it is one."""
        value = self.inputs[index]
        return value.value.item() if isinstance(value, Known) and value.value.ndim == 0 else self.tensor(index)

    def known(self, index: int) -> Known:
        """An input that has to be known when the network is written down."""
        value = self.inputs[index]
        if not isinstance(value, Known):
            raise UnknownValue(f"its input {index} depends on the image")
        return value

    def whole(self, index: int, attribute: str | None = None) -> list[Any] | None:
        """Whole numbers, from an input or, in older opsets, from an attribute; None where there are none."""
        if self.has(index):
            return self.known(index).whole()
        found = self.attributes.get(attribute) if attribute else None
        return None if found is None else list(found)

    def numbers(self, index: int, attribute: str | None = None) -> list[float] | None:
        """The same for numbers that need not be whole."""
        if self.has(index):
            return [*self.known(index).value.reshape(-1).tolist()]
        found = self.attributes.get(attribute) if attribute else None
        return None if found is None else [*found]

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or what it is if it is left out."""
        return self.attributes.get(name, default)


class UnknownValue(Exception):
    """A size or an index that depends on what the network is shown."""


Result = Value | tuple[Value, ...]
#: What a node comes to.
OnnxRule = Callable[[Call], Result]
RULES: dict[str, OnnxRule] = {}
#: What a node comes to whose inputs are all known, and some of them stand for free sizes.
KNOWN: dict[str, OnnxRule] = {}


def register(*names: str, known: bool = False) -> Callable[[OnnxRule], OnnxRule]:
    """Make a function the rule of the named ops, or what they come to where all of their inputs are sizes."""
    table = KNOWN if known else RULES

    def add(rule: OnnxRule) -> OnnxRule:
        for name in names:
            if name in table:
                raise ValueError(f"{name} has a rule already")
            table[name] = rule
        return rule

    return add


class Edit:
    """A node of a file whose numbers follow those of a cut network.

    Attributes:
        node: changed in place.
        after: the ATen calls it was read as, as they are in the cut network.
    """

    def __init__(self, node: onnx.NodeProto, after: list[Any], file: Any) -> None:
        self.node = node
        self.after = after
        self._file = file

    def call(self, name: str) -> Any:
        """The call of an op, by a part of its name."""
        return next(each for each in self.after if name in str(each.target))

    def constant(self, index: int) -> list[Any] | None:
        """The numbers of an input, None if they are computed or left out."""
        there = index < len(self.node.input) and self.node.input[index]
        found = self._file.constant(self.node.input[index]) if there else None
        return None if found is None else found.reshape(-1).tolist()

    def set_attribute(self, name: str, value: Any) -> None:
        """Say something else about the node."""
        others = [each for each in self.node.attribute if each.name != name]
        del self.node.attribute[:]
        self.node.attribute.extend([*others, onnx.helper.make_attribute(name, value)])

    def set_input(self, index: int, numbers: list[int]) -> None:
        """Whole numbers of its own for an input."""
        name = f"{self.node.name or self.node.output[0]}_{index}"
        self.node.input[index] = self._file.add(np.asarray(numbers, np.int64), name)

    def add(self, array: NDArray[Any], name: str) -> str:
        """A new constant of the file; returns its name."""
        return str(self._file.add(array, name))

    def set_numbers(self, index: int, attribute: str, numbers: list[int]) -> None:
        """The same for what older opsets have as an attribute."""
        if any(each.name == attribute for each in self.node.attribute):
            self.set_attribute(attribute, numbers)
        else:
            self.node.input.extend([""] * (index + 1 - len(self.node.input)))
            self.set_input(index, numbers)


Narrowing = Callable[[Edit], None]
#: How the numbers of an op follow.
NARROWED: dict[str, Narrowing] = {}


def narrows(*names: str) -> Callable[[Narrowing], Narrowing]:
    """Make a function what changes the numbers of the named ops to those of a cut network."""

    def add(narrowing: Narrowing) -> Narrowing:
        NARROWED.update(dict.fromkeys(names, narrowing))
        return narrowing

    return add


def axis_of(axis: int, rank: int) -> int:
    """An axis, counted from the front."""
    return axis + rank if axis < 0 else axis


def axes_of(axes: Iterable[int] | None, rank: int) -> list[int]:
    """Axes, counted from the front; all of them for None."""
    return list(range(rank)) if axes is None else [axis_of(axis, rank) for axis in axes]
