"""The size of every value in a graph, from a run on tensors that have sizes but no values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.node import Node

from pfpcli.graph.calls import is_pointwise

_ATEN = torch.ops.aten
#: Calls that torch does not tag as pointwise, and whose result has the sizes of their first operand.
_KEEP_SIZES = (_ATEN.batch_norm.default, _ATEN.dropout.default, _ATEN.hardswish.default)


def propagate(module: fx.GraphModule, example: Sequence[Tensor]) -> None:
    """Set `meta["val"]` of every node: a fake tensor of concrete sizes, or the number that the node computes."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(x, static_shapes=True) for x in example]
    with mode, torch.no_grad():
        _Sizes(module, mode).run(*fakes, enable_io_processing=False)


def propagate_free(module: fx.GraphModule, example: Sequence[Tensor], free: Sequence[Sequence[int]]) -> dict[Any, Any]:
    """Set `meta["val"]` of every node as `propagate` does, but with a symbol for each free size.

    Args:
        module: the graph; its nodes have the values that `propagate` gives them.
        example: the inputs.
        free: the dimensions of each input whose sizes are free. A size that the graph fixes gets no symbol.

    Returns:
        symbol -> the sizes that it may stand for. torch also supposes that a size lies on the same side of some limits
        as that of the example, to choose kernels; these limits are left out.

    Raises:
        Exception: whatever torch raises about a call whose result has no size that is known before it runs.
    """
    known = ShapeEnv(duck_shape=False)
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=known)
    fakes = []
    for x, dims in zip(example, free, strict=True):
        sizes = [DimDynamic.DYNAMIC if dim in dims else DimDynamic.STATIC for dim in range(x.dim())]
        context: Any = StatelessSymbolicContext(dynamic_sizes=sizes)
        fakes.append(mode.from_tensor(x, symbolic_context=context))
    ranges = dict(known.var_to_range)
    with mode, enable_python_dispatcher(), torch.no_grad():  # without the dispatcher some calls take no symbols
        _FreeSizes(module, mode).run(*fakes, enable_io_processing=False)
    known.guards.clear()
    return ranges


class _Sizes(fx.Interpreter):
    """Runs a graph on fake tensors and stores the value of each node in the node."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self._mode = mode
        self._seen: dict[int, Tensor] = {}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Return a fake of the tensor; the same tensor always gives the same fake."""
        value = super().get_attr(target, args, kwargs)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._seen and value.layout == torch.strided:  # several times as fast as from_tensor
            shape, stride = value.shape, value.stride()
            self._seen[id(value)] = torch.empty_strided(shape, stride, dtype=value.dtype, device=value.device)
        elif id(value) not in self._seen:
            self._seen[id(value)] = self._mode.from_tensor(value.detach(), static_shapes=True)
        return self._seen[id(value)]

    def run_node(self, n: Node) -> Any:
        """Run one node and store its value."""
        value = super().run_node(n)
        n.meta["val"] = value
        return value


class _FreeSizes(_Sizes):
    """Runs a graph on fake tensors whose free sizes are symbols.

    A call that keeps the sizes of an operand is not run, because torch takes up to a second for the symbols of one
    call: its value is that of the operand.
    """

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module, mode)
        self._known = {node: node.meta.get("val") for node in module.graph.nodes}

    def run_node(self, n: Node) -> Any:
        """Run one node, or take the value of an operand, and store it."""
        like = self._like(n)
        if like is None:
            return super().run_node(n)
        n.meta["val"] = self.env[like]
        return n.meta["val"]

    def _like(self, n: Node) -> Node | None:
        """Return the operand that the result of a call is like, if it is plain which one."""
        operands = n.all_input_nodes
        if n.op != "call_function" or not operands or not all(isinstance(self.env[each], Tensor) for each in operands):
            return None
        if n.target in _KEEP_SIZES:
            operands = operands[:1]
        elif not is_pointwise(n.target):
            return None
        largest = max(operands, key=lambda each: self.env[each].dim())
        fit = all(_fits(self.env[each], self.env[largest]) for each in operands)
        return largest if fit and _are_alike(self._known[n], self._known[largest]) else None


def _are_alike(one: Any, other: Any) -> bool:
    """Whether two values have the same type and layout; they have the same sizes."""
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    return one.dtype == other.dtype and one.stride() == other.stride()


def _fits(tensor: Tensor, larger: Tensor) -> bool:
    """Whether a tensor can be broadcast to the sizes of a larger one, whatever their symbols stand for."""
    pairs = zip(reversed(tensor.shape), reversed(larger.shape), strict=False)
    return all((isinstance(a, int) and a == 1) or _size(a) == _size(b) for a, b in pairs)


def _size(size: int | torch.SymInt) -> Any:
    """Return a size, or its expression, which compares without a guard."""
    return size.node.expr if isinstance(size, torch.SymInt) else size
