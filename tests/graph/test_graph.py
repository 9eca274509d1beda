"""What a traced graph promises to the steps after it, and how a broken promise is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.node import Node

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.graph.graph import Graph, add_tensor, fetch, is_constant, path_beside
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.trace import trace
from properties import random_drop
from zoo import Net, conv, counts, head
from zoo_blocks import NETS


def traced(module: nn.Module) -> Graph:
    """A graph of its own, which a test may break."""
    return trace.__wrapped__(module.eval(), (torch.randn(2, 3, 8, 8),))


def small() -> Graph:
    torch.manual_seed(0)
    return traced(nn.Sequential(conv(3, 4), head(4)))


def first(graph: Graph, start: str) -> Node:
    return next(node for node in graph.nodes if node.name.startswith(start))


@pytest.mark.parametrize("name", ["residual", "two_inputs", "writes_in_place", "attention", "shuffle", "yolo"])
def test_a_traced_graph_keeps_its_promises_and_so_does_a_cut_one(name: str) -> None:
    net = NETS[name]
    graph = trace(net.module(), net.example())
    graph.check()
    groups = group(label(graph))
    cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph.check()
    cut(groups.labelled, groups.alive(np.zeros(0, np.int64))).graph.check()


def call_a_method(graph: Graph) -> None:
    relu = first(graph, "relu")
    with graph.module.graph.inserting_after(relu):
        graph.module.graph.call_method("abs", (relu,)).meta["val"] = relu.meta["val"]


def forget_a_value(graph: Graph) -> None:
    del first(graph, "relu").meta["val"]


def run_too_early(graph: Graph) -> None:
    first(graph, "conv2d").prepend(first(graph, "relu"))


def read_a_foreign_node(graph: Graph) -> None:
    relu = first(graph, "relu")
    relu.args = (first(small(), "conv2d"),)


def lose_a_tensor(graph: Graph) -> None:
    del graph.module.get_submodule("0.0").weight


def write_in_place(graph: Graph) -> None:
    first(graph, "relu").target = torch.ops.aten.relu_.default


def write_to_a_weight(graph: Graph) -> None:
    weight = next(node for node in graph.nodes if node.op == "get_attr")
    with graph.module.graph.inserting_before(first(graph, "conv2d")):
        call = graph.module.graph.call_function(torch.ops.aten.copy_.default, (weight, weight))
    call.meta["val"] = weight.meta["val"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (call_a_method, "node abs.*: is a call_method, expected one of placeholder"),
        (forget_a_value, r"node relu.*: has no value in meta\['val'\], expected"),
        (run_too_early, "node relu.*: reads .*norm.*, which does not come before it"),
        (read_a_foreign_node, "node relu.*: reads conv2d, which does not come before it"),
        (lose_a_tensor, r"node .*: reads 0\.0\.weight, which the module does not have"),
        (write_in_place, r"node relu.*: aten\.relu_\.default writes to a tensor that the graph reads later"),
        (write_to_a_weight, r"node copy.*: aten\.copy_\.default writes to a tensor that the graph reads later"),
    ],
)
def test_a_broken_graph_is_reported_with_the_node(damage: Callable[[Graph], None], message: str) -> None:
    graph = small()
    graph.check()
    damage(graph)
    with pytest.raises(InvariantError, match=message):
        graph.check()


def test_a_graph_without_an_example_for_each_input_is_reported() -> None:
    graph = small()
    with pytest.raises(InvariantError, match="the graph has 1 inputs, expected 2"):
        replace(graph, example=(*graph.example, torch.zeros(2))).check()


def test_a_network_may_update_a_buffer_that_it_does_not_read_again() -> None:
    assert any(str(node.target) == "aten.copy_.default" for node in traced(counts()).nodes)


def test_a_chain_of_calls_on_parameters_is_constant_and_a_call_on_an_image_is_not() -> None:
    graph = trace(*_pair(NETS["layer_scale"]))
    kinds = {is_constant(node) for node in graph.nodes if node.op == "call_function"}
    assert kinds == {False}
    assert all(is_constant(node) for node in graph.nodes if node.op == "get_attr")
    assert not any(map(is_constant, graph.inputs))


def _pair(net: Net) -> tuple[nn.Module, tuple[Tensor, ...]]:
    return net.module(), net.example()


def test_a_new_tensor_gets_no_name_that_a_module_has_already() -> None:
    graph = small()
    node = first(graph, "mean") if any(n.name.startswith("mean") for n in graph.nodes) else next(graph.nodes)
    for taken in ("to", "forward", "training"):
        path = path_beside(graph.module, node, taken)
        add_tensor(graph.module, path, torch.zeros(1))
        assert torch.equal(fetch(graph.module, path), torch.zeros(1))
    assert path_beside(graph.module, node, "unused").endswith("unused")
