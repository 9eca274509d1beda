"""Every net of the zoo, cut at random and written as ONNX, computes in onnxruntime what it computes in torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch.utils._pytree import tree_leaves

from pfpcli.cutting.cut import cut
from pfpcli.exporting import export
from pfpcli.graph.graph import Graph
from properties import random_drop
from traced import grouped
from zoo_blocks import NETS

#: Nets that have every op of the zoo between them, several inputs, and outputs in a dict; the others are slow.
EXPORTED = [
    "plain", "option_a", "se_gate", "shuffle", "split_c2f", "uneven_split", "two_heads", "conv1d", "conv3d",
    "pixel_shuffle", "grouped_transposed", "writes_in_place", "spatial_gate", "norms", "attention", "unknown_op",
    "fpn", "generator", "cbam", "selective_kernels", "involution", "deformable", "crnn", "siamese", "transformer",
]  # fmt: skip


@cache
def smaller(name: str) -> tuple[Graph, Graph]:
    groups = grouped(name)
    return groups.labelled.graph, cut(groups.labelled, groups.alive(random_drop(groups, 1))).graph


def ops(name: str) -> set[str]:
    return {str(node.target) for node in grouped(name).labelled.graph.nodes if node.op == "call_function"}


@pytest.mark.xdist_group("every net")
def test_the_quick_exports_have_every_op_of_the_zoo() -> None:
    assert set().union(*map(ops, EXPORTED)) == set().union(*map(ops, NETS))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in EXPORTED)) for name in NETS]
)
def test_the_onnx_file_of_a_cut_net_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    whole, graph = smaller(name)
    named = export.names(whole)
    samples = NETS[name].example(batch=3, seed=5)
    path = tmp_path / "model.onnx"
    assert export.save_onnx(export.program(graph), graph, named, path, samples) < 1e-5
    model = onnx.load(path)
    assert tuple(value.name for value in model.graph.input) == named.inputs
    assert tuple(value.name for value in model.graph.output) == named.outputs
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input} == {"batch"}


@pytest.mark.parametrize("name", ["option_a", "attention", "two_heads"])
def test_the_program_file_of_a_cut_net_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    _, graph = smaller(name)
    export.save_pt2(export.program(graph), tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module(check_guards=False)
    samples = NETS[name].example(batch=5, seed=5)
    with torch.no_grad():
        pairs = zip(tree_leaves(loaded(*samples)), tree_leaves(graph.module(*samples)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)
