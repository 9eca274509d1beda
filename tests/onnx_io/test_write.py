"""A cut is written into the graph of the original's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import traced
from onnx_files import (
    NODE,
    assert_same_graph,
    groups_of,
    save,
    write,
    written,
)
from pfpcli.channels.cost import count
from pfpcli.cutting.cut import cut
from pfpcli.models.load import load
from pfpcli.onnx_io.runtime import run_onnx, session
from properties import assert_costs_as_predicted, assert_equals_masked, difference, random_drop
from zoo import ZOO

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")


#: Networks of one input that torch's older exporter can write.
NETS = [name for name, net in ZOO.items() if len(net.inputs) == 1]


#: Networks whose batch the file computes with, so that it is fixed when the file is read.
FIXED = {"writes_in_place": "the exporter writes to the places of a grid, which it makes of the sizes"}


#: What is one op for torch and several in the file, so that less of it is understood there.
COARSER = {
    "unknown_op": "the op is written as others, which have rules",
    "frozen_batch_norm": "the exporter folds it into the convolution in front of it",
    **FIXED,
}


@pytest.mark.parametrize("name", NETS)
def test_a_network_read_from_onnx_is_the_same_and_cut_alike_and_written_into_its_graph(
    name: str, tmp_path: Path
) -> None:
    net = ZOO[name]
    module, example = net.module(), net.example(batch=3)
    path = write(module, example[0], tmp_path / "net.onnx")
    source = load(path)
    groups = groups_of(path, source)
    graph = groups.labelled.graph
    assert graph.dynamic == (name not in FIXED)
    example = example if graph.dynamic else net.example(batch=1)
    with torch.no_grad():
        assert difference(graph.module(*example), module(*example)) < 1e-4
    if name not in COARSER:
        whole = traced.grouped(name)
        assert sorted(each.positions for each in groups.prunable) == sorted(each.positions for each in whole.prunable)
    for seed in range(2):
        alive = groups.alive(random_drop(groups, seed))
        smaller = cut(groups.labelled, alive).graph
        assert_equals_masked(groups, alive, smaller, example)
        assert_costs_as_predicted(groups, alive, smaller)
        assert_same_graph(path, written(source, groups, smaller, tmp_path))


def test_layers_that_share_no_more_than_equal_vectors_are_cut_on_their_own(tmp_path: Path) -> None:
    layers = [nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)]
    for layer in layers:
        nn.init.zeros_(layer.bias)
    norms = [[nn.ReLU(), nn.BatchNorm2d(8)] for _ in range(2)]
    module = nn.Sequential(layers[0], *norms[0], layers[1], *norms[1], layers[2]).eval()
    path = write(module, torch.randn(2, 3, 4, 4), tmp_path / "net.onnx")
    vectors = [each for each in onnx.load(path).graph.initializer if list(each.dims) == [8]]
    assert len(vectors) == 2  # the exporter writes equal numbers once
    source = load(path)
    groups = groups_of(path, source)
    assert [each.positions for each in groups.prunable] == [8, 8]
    assert count(groups.labelled.graph).params == sum(x.numel() for x in module.parameters())
    for seed in range(3):  # they have different numbers of them then
        smaller = cut(groups.labelled, groups.alive(random_drop(groups, seed))).graph
        assert_same_graph(path, written(source, groups, smaller, tmp_path))


def test_layers_that_share_all_of_their_weights_still_do(tmp_path: Path) -> None:
    shared, norm = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
    module = nn.Sequential(nn.Conv2d(3, 8, 1), shared, nn.ReLU(), norm, shared, nn.ReLU(), norm, nn.Conv2d(8, 4, 1))
    module.eval()
    groups = groups_of(write(module, torch.randn(2, 3, 4, 4), tmp_path / "net.onnx"))
    assert count(groups.labelled.graph).params == sum(x.numel() for x in module.parameters())
    assert [each.positions for each in groups.prunable] == [8]


def test_numbers_for_channels_that_are_computed_from_their_count_are_cut_with_them(tmp_path: Path) -> None:
    """As positions are in attention: a row of numbers, as long as there are channels, is added."""
    generator = np.random.default_rng(0)
    held = {
        "first": generator.normal(size=(12, 3, 1, 1)).astype(np.float32),
        "second": generator.normal(size=(4, 12, 1, 1)).astype(np.float32),
        "zero": np.asarray(0, np.int64), "one": np.asarray(1, np.int64), "axes": np.asarray([0, 2, 3], np.int64),
    }  # fmt: skip
    nodes = [
        NODE("Conv", ["x", "first"], ["a"], "a"),
        NODE("Shape", ["a"], ["shape"], "shape"),
        NODE("Gather", ["shape", "one"], ["channels"], "channels"),
        NODE("Range", ["zero", "channels", "one"], ["row"], "row"),
        NODE("Cast", ["row"], ["floats"], "floats", to=TensorProto.FLOAT),
        NODE("Sin", ["floats"], ["waves"], "waves"),
        NODE("Unsqueeze", ["waves", "axes"], ["positions"], "positions"),
        NODE("Add", ["a", "positions"], ["b"], "b"),
        NODE("Relu", ["b"], ["c"], "c"),
        NODE("Conv", ["c", "second"], ["y"], "y"),
    ]
    path = save(nodes, tmp_path / "net.onnx", [numpy_helper.from_array(value, name) for name, value in held.items()])
    source = load(path)
    groups = groups_of(path, source)
    for seed in range(3):
        alive = groups.alive(random_drop(groups, seed))
        smaller = cut(groups.labelled, alive).graph
        assert_equals_masked(groups, alive, smaller, groups.labelled.graph.example)
        assert_same_graph(path, written(source, groups, smaller, tmp_path))


def test_constants_that_a_cut_adds_to_an_old_file_are_listed_as_it_lists_them(tmp_path: Path) -> None:
    net = ZOO["uneven_split"]
    path = write(net.module(), net.example()[0], tmp_path / "net.onnx", opset=10)
    model = onnx.load(path)
    model.ir_version = 3
    listed = {each.name for each in model.graph.input}
    model.graph.input.extend(
        helper.make_tensor_value_info(each.name, each.data_type, each.dims)
        for each in model.graph.initializer
        if each.name not in listed
    )
    onnx.save(model, path)
    onnx.checker.check_model(path)
    source = load(path)
    groups = groups_of(path, source)
    for seed in range(4):
        smaller = cut(groups.labelled, groups.alive(random_drop(groups, seed))).graph
        onnx.checker.check_model(written(source, groups, smaller, tmp_path))


def test_a_file_with_channels_last_keeps_them_last(tmp_path: Path) -> None:
    net = ZOO["residual"]
    model = onnx.load(write(net.module(), net.example()[0], tmp_path / "first.onnx"))
    (image,) = model.graph.input
    batch, channels, height, width = image.type.tensor_type.shape.dim
    turned = helper.make_tensor_value_info("image_last", TensorProto.FLOAT, None)
    turned.type.tensor_type.shape.dim.extend([batch, height, width, channels])
    nodes = [NODE("Transpose", ["image_last"], ["image"], "turn", perm=[0, 3, 1, 2]), *model.graph.node]
    del model.graph.input[:], model.graph.node[:]
    model.graph.input.append(turned)
    model.graph.node.extend(nodes)
    path = tmp_path / "last.onnx"
    onnx.save(model, path)
    source, first = load(path), load(tmp_path / "first.onnx")
    assert source.input_size == first.input_size
    groups = groups_of(path, source)
    assert sorted(each.positions for each in groups.prunable) == sorted(
        each.positions for each in groups_of(tmp_path / "first.onnx", first).prunable
    )
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    assert_same_graph(path, after)
    x = net.example(3)[0]
    (found,) = run_onnx(session(after), [x.permute(0, 2, 3, 1)])
    with torch.no_grad():
        assert difference(torch.from_numpy(found), smaller.module(x)) < 1e-4


def exported_by_people() -> list[Any]:
    """Files of the shared folder. Three are slow, on large images or with 300 ops; nets of the zoo have their ops."""
    slow = ("twinlite_720x1280", "agllnet_256", "ppocr_v1.1_det")
    files = sorted(SHARED.glob("wild/*.onnx"))
    return [pytest.param(file, id=file.stem, marks=[pytest.mark.slow] * (file.stem in slow)) for file in files]


@shared
@pytest.mark.parametrize("path", exported_by_people())
def test_files_as_people_exported_them_are_read_and_cut_and_written(path: Path, tmp_path: Path) -> None:
    source = load(path)
    groups = groups_of(path, source)
    assert len(groups.prunable) > len(groups.groups) / 2
    alive = groups.alive(random_drop(groups, 0))
    smaller = cut(groups.labelled, alive).graph
    generator = torch.Generator().manual_seed(0)
    example = tuple(torch.randn(x.shape, generator=generator) for x in groups.labelled.graph.example)
    assert_equals_masked(groups, alive, smaller, example)
    assert_costs_as_predicted(groups, alive, smaller)
    assert_same_graph(path, written(source, groups, smaller, tmp_path))
