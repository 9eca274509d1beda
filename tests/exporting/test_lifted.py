"""A graph becomes a program without being traced again, and the program is the one that tracing would give."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves, tree_structure

from pfpcli.exporting import export, program
from pfpcli.exporting.lifted import CannotLift, lifted
from pfpcli.exporting.program import program_of
from pfpcli.graph.graph import Graph
from pfpcli.graph.propagate import propagate, propagate_free
from pfpcli.graph.trace import export_program, free_dims, open_dims, trace
from traced import grouped
from zoo import counts
from zoo_blocks import NETS

#: Nets whose calls compute sizes each in its own way; the other nets are slow.
SIZED = {
    *("plain", "option_a", "se_gate", "flatten_linear", "shuffle", "two_inputs", "two_heads", "conv1d", "fpn", "cbam"),
    *("pixel_shuffle", "grouped_transposed", "writes_in_place", "norms", "attention", "crnn", "transformer"),
    "deformable",
}
#: Nets whose programs are compared with those of torch, which takes seconds; the other nets are slow.
COMPARED = {"fpn", "attention"}


def every(quick: set[str]) -> list[Any]:
    """All nets; those that are not quick are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in quick)) for name in NETS]


def graph_of(name: str) -> Graph:
    return grouped(name).labelled.graph


def sizes_of(module: fx.GraphModule, example: Sequence[Tensor]) -> dict[str, list[int]]:
    """Name of a node -> the sizes of its tensors, one after the other, for some inputs."""
    copied = fx.GraphModule(module, copy.deepcopy(module.graph))
    propagate(copied, example)
    return {
        node.name: [size for each in tree_leaves(node.meta["val"]) if isinstance(each, Tensor) for size in each.shape]
        for node in copied.graph.nodes
        if "val" in node.meta
    }


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    def traced(*_: object) -> ExportedProgram:
        raise AssertionError("the graph was traced again")

    monkeypatch.setattr(program, "export_program", traced)


@pytest.mark.parametrize("name", every(SIZED))
def test_every_network_becomes_a_program_that_takes_what_it_takes(name: str, untraced: None) -> None:
    graph = graph_of(name)
    made = program_of(graph)
    assert open_dims(made) == [list(dims) for dims in free_dims(graph.example, spatial=graph.spatial)]
    samples = NETS[name].example(batch=17, seed=5)
    with torch.no_grad():
        found, expected = made.module()(*samples), graph.module(*samples)
    assert tree_structure(found) == tree_structure(expected)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", every(SIZED))
def test_sizes_in_symbols_are_right_for_other_inputs(name: str) -> None:
    graph = graph_of(name)
    module = fx.GraphModule(graph.module, copy.deepcopy(graph.module.graph))
    other = [torch.cat([x, x, x]) for x in graph.example]
    if graph.spatial:
        other = [x.repeat(1, 1, 2, 3) if x.dim() == 4 else x for x in other]
    expected = sizes_of(module, other)
    propagate_free(module, graph.example, free_dims(graph.example, spatial=graph.spatial))
    stands_for = {
        size.node.expr: there
        for node, x in zip((n for n in module.graph.nodes if n.op == "placeholder"), other, strict=True)
        for size, there in zip(node.meta["val"].shape, x.shape, strict=True)
        if not isinstance(size, int)
    }
    for node in module.graph.nodes:
        sizes = [size for each in tree_leaves(node.meta.get("val")) if isinstance(each, Tensor) for size in each.shape]
        found = [size if isinstance(size, int) else int(size.node.expr.subs(stands_for)) for size in sizes]
        assert found == expected.get(node.name, found), node


@pytest.mark.parametrize("name", every(COMPARED))
def test_a_program_is_the_one_that_tracing_gives(name: str, tmp_path: Path) -> None:
    graph, path = graph_of(name), tmp_path / "model.onnx"
    free = free_dims(graph.example, spatial=graph.spatial)
    files = []
    for made in (export_program(graph.module, graph.example, free), lifted(graph.module, graph.example, free)):
        export.save_onnx(made, graph, export.names(graph), path, NETS[name].example(batch=3))
        files.append(onnx.load(path).graph)
    first, second = ([(node.op_type, *map(str, node.attribute)) for node in file.node] for file in files)
    assert first == second
    first, second = (sorted((each.name, *each.dims) for each in file.initializer) for file in files)
    assert first == second


def test_a_network_that_writes_to_its_tensors_is_traced_again() -> None:
    graph = trace(counts().eval(), (torch.randn(2, 3, 8, 8),))
    with pytest.raises(CannotLift, match="writes to its operand"):
        lifted(graph.module, graph.example, free_dims(graph.example, spatial=False))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(program_of(graph).module()(x), graph.module(x))


def test_the_sizes_of_outputs_are_told_by_the_names_of_the_sizes_of_inputs(tmp_path: Path) -> None:
    graph = graph_of("fpn")
    path = tmp_path / "model.onnx"
    export.save_onnx(program_of(graph), graph, export.names(graph), path, NETS["fpn"].example(batch=3))
    assert export.open_sizes(path) == ("batch", "height", "width")
    fine = onnx.load(path).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in fine] == ["batch", "", "(((height - 1)//2)) + 1", "(((width - 1)//2)) + 1"]
