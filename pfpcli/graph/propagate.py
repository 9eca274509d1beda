"""The size of every value in a graph, from a run on tensors that have sizes but no values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Node


def propagate(module: fx.GraphModule, example: Sequence[Tensor]) -> None:
    """Set `meta["val"]` of every node: a fake tensor of concrete sizes, or the number that the node computes."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(x, static_shapes=True) for x in example]
    with mode, torch.no_grad():
        _Sizes(module, mode).run(*fakes, enable_io_processing=False)


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
