"""What the exporter does once instead of for each file changes no file."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.fx.passes.type_promotion import _TypePromotionInterpreter

from pfpcli.exporting.converted import converted
from pfpcli.exporting.program import program_of
from pfpcli.exporting.repeats import without_repeats
from pfpcli.graph.quiet import quiet
from pfpcli.graph.trace import trace
from zoo import Calls


def mixed() -> nn.Module:
    """Calls whose operands have different types: torch converts them."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.layer(x)
        return (y + m.whole) * (y > 0) / 2 + (m.whole / m.more).sqrt()

    whole, more = torch.tensor([[[1]], [[2]], [[3]], [[4]]]), torch.tensor([[[5]], [[6]], [[7]], [[8]]])
    return Calls(forward, layer=nn.Conv2d(3, 4, 1), whole=whole, more=more)


def written(net: nn.Module) -> onnx.ModelProto:
    """The file of a network."""
    program = program_of(trace(net.eval(), (torch.randn(2, 3, 8, 8),)))
    with quiet():
        made = torch.onnx.export(converted(program), dynamo=True, verbose=False, optimize=False)
    assert made is not None
    return made.model_proto


def nodes(model: onnx.ModelProto) -> list[tuple[object, ...]]:
    """What the nodes compute, and of what."""
    return [(node.op_type, *node.input, *node.output, *map(str, node.attribute)) for node in model.graph.node]


def test_operands_of_other_types_are_converted_as_the_exporter_converts_them() -> None:
    expected = nodes(written(mixed()))
    with without_repeats():
        found = nodes(written(mixed()))
    assert "Cast" in [kind for kind, *_ in expected]
    assert found == expected


@pytest.mark.parametrize(("owner", "name"), [(ONNXRegistry, "from_torchlib"), (_TypePromotionInterpreter, "run_node")])
def test_torch_is_afterwards_as_it_was(owner: type, name: str) -> None:
    before: Callable[..., object] = vars(owner)[name]
    with without_repeats():
        assert vars(owner)[name] is not before
    assert vars(owner)[name] is before
