"""One node of an ONNX graph as its reading rule sees it: attributes and computed inputs.

The value of an input is a torch tensor or `Known`: a small constant, or an array computed from sizes alone. Rules do
arithmetic on sizes at once, with numbers that may stand for free sizes, so that the traced network contains none of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

#: ONNX's number of a type -> torch's type.
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


#: Numpy's type -> torch's type. A table, because the tracer would record a conversion by torch.
_OF_NUMPY: dict[Any, torch.dtype] = {
    np.dtype(name): getattr(torch, name)
    for name in ("float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "bool")
}
_TO_NUMPY: dict[torch.dtype, Any] = {**{kind: name for name, kind in _OF_NUMPY.items()}, torch.bfloat16: np.float32}


@dataclass(frozen=True)
class Known:
    """A value that is known before the network sees an image: it depends on constants and on sizes only.

    Attributes:
        value: an array of numbers, or of objects if some numbers stand for free sizes.
        dtype: the type of the numbers in the file.
        tensor: the parameter or buffer that holds the value, None for a computed value.
    """

    value: NDArray[Any]
    dtype: torch.dtype
    tensor: Tensor | None = None

    @classmethod
    def of(cls, numbers: Any, dtype: torch.dtype) -> Known:
        """Make a value from a number, lists of numbers or an array."""
        return cls(np.asarray(numbers, object), dtype)

    @classmethod
    def of_array(cls, array: NDArray[Any]) -> Known:
        """Make a value from a numpy array and take its type from the array."""
        return cls(array, _OF_NUMPY.get(array.dtype, torch.bfloat16))

    @property
    def is_concrete(self) -> bool:
        """Whether no number stands for a free size."""
        return not any(isinstance(x, _FREE) for x in self.value.reshape(-1).tolist())

    def numbers(self) -> NDArray[Any]:
        """Return a concrete value as an array of its type in the file."""
        return self.value.astype(_TO_NUMPY[self.dtype])

    def whole(self) -> list[Any]:
        """Return the numbers in one row, as whole numbers."""
        return [int(x) if isinstance(x, (int, float, np.generic)) else x for x in self.value.reshape(-1).tolist()]

    def as_tensor(self) -> Tensor:
        """Return the value as a tensor; a tensor of free sizes follows those sizes."""
        if self.tensor is not None:
            return self.tensor
        numbers = self.value.reshape(-1).tolist()
        if any(isinstance(x, torch.SymInt) for x in numbers):
            made = torch.stack([torch.scalar_tensor(x, dtype=self.dtype) for x in numbers])
            return made.view(self.value.shape)
        return torch.tensor(numbers, dtype=self.dtype).view(self.value.shape)


#: Types of numbers that stand for free sizes, or are computed from free sizes.
_FREE = (torch.SymInt, torch.SymFloat, torch.SymBool)

Value = Tensor | Known | None


@dataclass
class Call:
    """A node that is about to be computed.

    Attributes:
        op: its type, e.g. "Conv".
        name: name of the node, or of its first output.
        version: the opset that defines the op.
        attributes: name -> number, string, list or tensor.
        inputs: one value per input, None for an optional input that the node leaves out.
        outputs: number of outputs that the node names.
    """

    op: str
    name: str
    version: int
    attributes: dict[str, Any]
    inputs: list[Value]
    outputs: int = 1

    def has(self, index: int) -> bool:
        """Whether the node has this input."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        """Return an input as a tensor."""
        value = self.inputs[index]
        assert value is not None, f"{self.op} {self.name}: input {index} is missing"
        return value.as_tensor() if isinstance(value, Known) else value

    def tensors(self) -> list[Tensor]:
        """Return all inputs as tensors."""
        return [self.tensor(i) for i in range(len(self.inputs))]

    def optional(self, index: int) -> Tensor | None:
        """Return an input as a tensor, None if the node leaves it out."""
        return self.tensor(index) if self.has(index) else None

    def operand(self, index: int) -> Any:
        """Return a known scalar input as a number, any other input as a tensor."""
        value = self.inputs[index]
        return value.value.item() if isinstance(value, Known) and value.value.ndim == 0 else self.tensor(index)

    def known(self, index: int) -> Known:
        """Return an input that must not depend on the image.

        Raises:
            UnknownValue: the input depends on the image.
        """
        value = self.inputs[index]
        if not isinstance(value, Known):
            raise UnknownValue(f"its input {index} depends on the image")
        return value

    def whole(self, index: int, attribute: str | None = None) -> list[Any] | None:
        """Return whole numbers from an input or, in older opsets, from an attribute; None if the node has neither."""
        if self.has(index):
            return self.known(index).whole()
        found = self.attributes.get(attribute) if attribute else None
        return None if found is None else list(found)

    def numbers(self, index: int, attribute: str | None = None) -> list[float] | None:
        """Return numbers from an input or, in older opsets, from an attribute; None if the node has neither."""
        if self.has(index):
            return [*self.known(index).value.reshape(-1).tolist()]
        found = self.attributes.get(attribute) if attribute else None
        return None if found is None else [*found]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default if the node leaves it out."""
        return self.attributes.get(name, default)


class NotRead(Exception):
    """A rule does not read this variant of its op; the message says which. The file is refused with the node's name."""


class UnknownValue(NotRead):
    """A size or an index depends on the values of the image."""


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    return axis + rank if axis < 0 else axis


def axes_of(axes: Iterable[int] | None, rank: int) -> list[int]:
    """Return axes counted from the front; None stands for all axes."""
    return list(range(rank)) if axes is None else [axis_of(axis, rank) for axis in axes]
