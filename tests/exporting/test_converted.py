"""Most networks are written as ONNX without torch's decompositions, in the same number of nodes."""

from __future__ import annotations

from functools import cache

import onnx
import pytest
from torch.export import ExportedProgram

from pfpcli.errors import PfpError
from pfpcli.exporting import export
from pfpcli.exporting.converted import converted
from pfpcli.exporting.program import program_of
from pfpcli.graph.graph import Graph
from traced import grouped


@cache
def program(name: str) -> tuple[Graph, ExportedProgram]:
    graph = grouped(name).labelled.graph
    return graph, program_of(graph)


def calls(exported: ExportedProgram) -> list[str]:
    return [f"{node.name} {node.target} {node.args}" for node in exported.graph.nodes]


def nodes(model: onnx.ModelProto) -> int:
    return sum(len(part.node) for part in export._graphs(model.graph))


@pytest.mark.parametrize("name", ["plain", "linear_to_map", "norms", "attention", "transformer", "two_heads", "crnn"])
def test_a_file_without_decompositions_has_no_more_nodes_than_one_with_them(name: str) -> None:
    graph, exported = program(name)
    named = export.names(graph)
    found = export._export_converted(exported, graph, named)
    expected = export._export_program(exported, graph, named)
    assert 0 < nodes(found) <= nodes(expected)
    assert [each.version for each in found.opset_import] == [each.version for each in expected.opset_import]


@pytest.mark.parametrize("name", ["plain", "linear_to_map", "transformer"])
def test_a_program_is_the_same_after_it_was_exported_without_decompositions(name: str) -> None:
    graph, exported = program(name)
    before = calls(exported)
    export._export_converted(exported, graph, export.names(graph))
    assert calls(exported) == before


def test_an_average_over_all_positions_becomes_a_mean_and_another_pooling_stays() -> None:
    _, exported = program("cbam")
    kept = {str(node.target) for node in converted(exported).graph.nodes}
    assert "aten.adaptive_max_pool2d.default" in kept
    assert "aten.adaptive_avg_pool2d.default" not in kept


def test_a_call_without_an_onnx_function_fails_so_that_the_next_exporter_is_tried() -> None:
    graph, exported = program("cbam")
    with pytest.raises(Exception, match="adaptive_max_pool2d") as raised:
        export._export_converted(exported, graph, export.names(graph))
    assert not isinstance(raised.value, PfpError)
