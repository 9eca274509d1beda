"""Every net of the zoo, cut at random and written as ONNX, computes in onnxruntime what it computes in torch."""

from __future__ import annotations

import errno
import os
from functools import cache
from pathlib import Path

import onnx
import pytest
import torch
from torch.utils._pytree import tree_leaves

from pfpcli.cutting.cut import cut
from pfpcli.errors import CheckFailed
from pfpcli.exporting import export
from pfpcli.exporting.program import program_of
from pfpcli.graph.graph import Graph
from pfpcli.onnx_io.runtime import onnx_vs_torch
from properties import random_drop
from traced import grouped
from zoo_blocks import NETS

#: Net -> the ops for which it is exported, so that every op of the zoo is; the other nets are slow. Of the outputs
#: of `two_heads` one is in a dict; `siamese` has two inputs.
EXPORTED = {
    "cbam": "adaptive_avg_pool2d adaptive_max_pool2d add.Tensor batch_norm cat conv2d flatten.using_ints "
    "getitem linear max.dim mean.dim mul.Tensor relu sigmoid",
    "attention": "gelu layer_norm permute reshape scaled_dot_product_attention sym_size.int transpose.int unbind.int",
    "conv1d": "adaptive_avg_pool1d conv1d conv1d.padding leaky_relu prelu",
    "writes_in_place": "_native_batch_norm_legit_no_training slice.Tensor slice_scatter view",
    "selective_kernels": "softmax.int stack sum.dim_IntList unsqueeze",
    "conv3d": "adaptive_avg_pool3d conv3d max_pool3d",
    "fpn": "add floordiv upsample_nearest2d.vec",
    "generator": "conv_transpose2d.input tanh unflatten.int",
    "se_gate": "hardsigmoid silu",
    "pixel_shuffle": "pixel_shuffle pixel_unshuffle",
    "deformable": "torchvision.deform_conv2d zeros",
    "siamese": "abs sub.Tensor",
    "transformer": "contiguous dropout mul select.int squeeze.dim",
    "plain": "max_pool2d",
    "option_a": "pad",
    "shuffle": "index_select",
    "split_c2f": "chunk",
    "uneven_split": "split_with_sizes",
    "grouped_transposed": "upsample_bilinear2d.vec",
    "spatial_gate": "amax",
    "norms": "group_norm",
    "position_attention": "matmul",
    "unknown_op": "prod.dim_int",
    "involution": "im2col",
    "crnn": "lstm.input",
    "two_heads": "",
}


@cache
def smaller(name: str) -> tuple[Graph, Graph]:
    groups = grouped(name)
    return groups.labelled.graph, cut(groups.labelled, groups.alive(random_drop(groups, 1))).graph


def ops(name: str) -> set[str]:
    """The ops of a net, without `aten.` and `.default`."""
    called = [node.target for node in grouped(name).labelled.graph.nodes if node.op == "call_function"]
    overloads = {str(op) for op in called if isinstance(op, torch._ops.OpOverload)}
    functions = {op.__name__ for op in called if not isinstance(op, torch._ops.OpOverload)}
    return {op.removeprefix("aten.").removesuffix(".default") for op in overloads} | functions


@pytest.mark.parametrize("name", NETS)
def test_every_op_of_a_net_is_exported_with_a_net_that_is_not_slow(name: str) -> None:
    assert ops(name) <= {op for exported in EXPORTED.values() for op in exported.split()}
    assert ops(name) >= set(EXPORTED.get(name, "").split())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in EXPORTED)) for name in NETS]
)
def test_the_onnx_file_of_a_cut_net_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    whole, graph = smaller(name)
    named = export.names(whole)
    samples = NETS[name].example(batch=3, seed=5)
    path = tmp_path / "model.onnx"
    # sums over the largest images that it is tried on are rounded by some 1e-5
    assert export.save_onnx(program_of(graph), graph, named, path, samples) < 5e-5
    assert onnx_vs_torch(path, graph, samples) < 1e-5
    model = onnx.load(path)
    assert tuple(value.name for value in model.graph.input) == named.inputs
    assert tuple(value.name for value in model.graph.output) == named.outputs
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input} == {"batch"}


@pytest.mark.parametrize("name", ["option_a", "attention", "two_heads"])
def test_the_program_file_of_a_cut_net_computes_what_torch_computes(name: str, tmp_path: Path) -> None:
    _, graph = smaller(name)
    export.save_pt2(program_of(graph), tmp_path / "model.pt2")
    loaded = torch.export.load(tmp_path / "model.pt2").module(check_guards=False)
    samples = NETS[name].example(batch=5, seed=5)
    with torch.no_grad():
        pairs = zip(tree_leaves(loaded(*samples)), tree_leaves(graph.module(*samples)), strict=True)
    for found, expected in pairs:
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["plain", "flatten_linear", "split_c2f", "option_a"])
def test_a_network_that_is_only_timed_is_the_same_network_on_one_input(name: str) -> None:
    graph = smaller(name)[1]
    one = [x[:1] for x in graph.example]
    assert onnx_vs_torch(export.quickly(graph, export.names(graph), one), graph, one) < 1e-4


def test_a_network_that_the_quicker_exporter_gets_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut_graph = smaller("plain")
    one = [x[:1] for x in whole.example]
    wrong = export.quickly(whole, export.names(whole), one)
    monkeypatch.setattr(export, "_traced", lambda *_: wrong)
    with pytest.raises(CheckFailed):
        export.quickly(cut_graph, export.names(cut_graph), one)


def test_a_full_disk_is_not_taken_for_an_exporter_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = smaller("plain")[1]
    exported = program_of(graph)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export.save_onnx(exported, graph, export.names(graph), tmp_path / "model.onnx", NETS["plain"].example(batch=3))
