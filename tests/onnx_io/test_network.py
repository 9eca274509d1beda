"""ONNX files become networks that compute what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from onnx_files import (
    NODE,
    groups_of,
    save,
    write,
)
from pfpcli.errors import CheckFailed, InputError
from pfpcli.graph.trace import trace
from pfpcli.jobs.steps import open as open_step
from pfpcli.jobs.steps.open import trace_groups
from pfpcli.models.load import load
from pfpcli.onnx_io.network import read_onnx
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings
from properties import difference
from zoo import ZOO, conv, head

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")


def test_a_fixed_batch_stays_fixed(tmp_path: Path) -> None:
    net = ZOO["residual"]
    for batch in (1, 4):
        path = write(net.module(), net.example(batch=batch)[0], tmp_path / f"{batch}.onnx", free=())
        assert load(path).batch == batch
        graph = groups_of(path).labelled.graph
        assert graph.fixed_batch == batch


def test_heights_and_widths_are_free_where_the_file_says_so(tmp_path: Path) -> None:
    module = nn.Sequential(conv(3, 8), nn.Upsample(scale_factor=2), conv(8, 8), head(8)).eval()
    path = write(module, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx", ("n", "", "h", "w"))
    source = load(path)
    assert source.input_size is None
    graph = trace_groups(source, (3, 8, 8), NetworkSettings(model=path), Console()).labelled.graph
    assert graph.dynamic
    assert graph.spatial
    x = torch.randn(3, 3, 16, 12)
    with torch.no_grad():
        assert difference(graph.module(x), module(x)) < 1e-5


def test_weights_without_a_name_are_called_after_the_node_that_reads_them(tmp_path: Path) -> None:
    module = nn.Sequential(conv(3, 8), head(8)).eval()  # the exporter folds the norm and gives the weights numbers
    path = write(module, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx")
    (node,) = (node for node in onnx.load(path).graph.node if node.op_type == "Conv")
    assert "." not in node.input[1]
    where = node.name.strip("/").replace("/", ".")
    assert dict(read_onnx(path).named_parameters()).keys() == {
        f"{where}.weight", f"{where}.bias", "1.2.weight", "1.2.bias",
    }  # fmt: skip


def test_tensors_whose_names_collide_get_different_names(tmp_path: Path) -> None:
    held = {"a": 4, "a.b": 5, "a/b": 6, "training": 7, "a.b.weight": 8, "forward.x": 9}
    tensors = [numpy_helper.from_array(np.full((1, 3, 1, 1), value, np.float32), name) for name, value in held.items()]
    nodes = []
    for i, name in enumerate(held):
        nodes.append(helper.make_node("Add", ["x" if not i else f"y{i - 1}", name], [f"y{i}"]))
    path = save(nodes, tmp_path / "net.onnx", tensors, output=f"y{len(held) - 1}")
    network = read_onnx(path)
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(network(x), x + sum(held.values()))
    assert sorted(float(tensor.detach().flatten()[0]) for tensor in network.parameters()) == sorted(held.values())


def test_an_op_takes_numbers_and_tensors_in_either_order(tmp_path: Path) -> None:
    held = {
        "limit": np.asarray(0.5, np.float32), "no": np.asarray(False), "weight": np.ones((1, 3, 1, 1), np.float32),
    }  # fmt: skip
    nodes = [
        NODE("Less", ["x", "limit"], ["below"]),
        NODE("Xor", ["below", "no"], ["same"]),
        NODE("Where", ["same", "x", "limit"], ["clipped"]),
        NODE("Conv", ["clipped", "weight"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    network = read_onnx(save(nodes, tmp_path / "net.onnx", tensors))
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(network(x), x.clamp(max=0.5).sum(1, keepdim=True))


def test_sizes_are_computed_while_the_network_is_traced(tmp_path: Path) -> None:
    """Half of the height, times two, by way of floats: what exporters have made of an interpolation."""
    numbers = {
        "two": np.asarray(2, np.int64), "three": np.asarray([3], np.int64), "scale": np.asarray(2.0, np.float32),
        "axes": np.asarray([0], np.int64), "starts": np.asarray([2], np.int64), "ends": np.asarray([4], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "starts", "ends"], ["sides"]),
        node("Cast", ["sides"], ["floats"], to=TensorProto.FLOAT),
        node("Mul", ["floats", "scale"], ["scaled"]),
        node("Floor", ["scaled"], ["floored"]),
        node("Cast", ["floored"], ["wanted"], to=TensorProto.INT64),
        node("Gather", ["shape", "axes"], ["batch"]),
        node("Concat", ["batch", "three", "wanted"], ["sizes"], axis=0),
        node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear"),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in numbers.items()]
    network = read_onnx(save(nodes, tmp_path / "net.onnx", tensors))
    graph = trace(network, (torch.randn(2, 3, 8, 8),))
    assert graph.dynamic
    assert {str(n.target).split(".")[1] for n in graph.nodes if n.op == "call_function"} <= {
        "upsample_bilinear2d", "sym_size",
    }  # fmt: skip
    x = torch.randn(3, 3, 8, 8)
    assert torch.allclose(graph.module(x), torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"))


def test_sizes_that_are_only_known_where_they_are_fixed_fix_the_network(tmp_path: Path) -> None:
    held = {
        "half": np.asarray([0.5, 0.5], np.float32), "starts": np.asarray([2], np.int64),
        "ends": np.asarray([4], np.int64), "weight": np.ones((4, 3, 1, 1), np.float32),
        "front": np.asarray([1, 3], np.int64),
    }  # fmt: skip
    nodes = [
        NODE("Shape", ["x"], ["shape"]),
        NODE("Slice", ["shape", "starts", "ends"], ["sides"]),
        NODE("Cast", ["sides"], ["floats"], to=TensorProto.FLOAT),
        NODE("Mul", ["floats", "half"], ["scaled"]),
        NODE("Round", ["scaled"], ["rounded"]),
        NODE("Cast", ["rounded"], ["wanted"], to=TensorProto.INT64),
        NODE("Concat", ["front", "wanted"], ["sizes"], axis=0),
        NODE("Resize", ["x", "", "", "sizes"], ["small"], mode="nearest"),
        NODE("Conv", ["small", "weight"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in held.items()]
    path = save(nodes, tmp_path / "net.onnx", tensors, sizes=[1, 3, "h", "w"])
    graph = trace_groups(load(path), (3, 8, 8), NetworkSettings(model=path), Console()).labelled.graph
    assert not graph.spatial
    assert graph.module(torch.randn(1, 3, 8, 8)).shape == (1, 4, 4, 4)


def test_many_channels_of_narrow_images_are_first(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 15, 1, 1), np.float32), "weight")
    path = save([NODE("Conv", ["x", "weight"], ["y"])], tmp_path / "net.onnx", [weight], sizes=["n", 15, 5, 3])
    assert load(path).input_size == (15, 5, 3)


REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "unknown op": (
        lambda path: save([NODE("NonZero", ["x"], ["z"]), NODE("Cast", ["z"], ["y"], to=1)], path),
        "pfp does not read these ops of ONNX: NonZero ×1",
        "checkpoint that the file was exported from",
    ),
    "op of somebody else": (
        lambda path: save([NODE("Fused", ["x"], ["y"], domain="com.example")], path, opsets={"": 17, "com.example": 1}),
        "com.example.Fused ×1",
        "checkpoint that the file was exported from",
    ),
    "quantised": (
        lambda path: save(
            [NODE("DynamicQuantizeLinear", ["x"], ["a", "b", "c"]), NODE("Cast", ["a"], ["y"], to=1)], path
        ),
        "is quantised",
        "quantise the cut network",
    ),
    "old": (
        lambda path: save([NODE("Relu", ["x"], ["y"])], path, opsets={"": 6}),
        "is of opset 6; pfp reads 7 and newer",
        "convert_version",
    ),
    "two inputs": (
        lambda path: save([NODE("Add", ["x", "z"], ["y"])], path, inputs=("x", "z")),
        "has 2 inputs (x, z)",
        "",
    ),
    "whole numbers": (
        lambda path: save([NODE("Cast", ["x"], ["y"], to=1)], path, kind=TensorProto.UINT8),
        "reads images of type uint8",
        "extract_model",
    ),
    "half precision": (
        lambda path: save([NODE("Cast", ["x"], ["y"], to=1)], path, kind=TensorProto.FLOAT16),
        "reads images of type float16",
        "in 32-bit floats, and convert the cut network",
    ),
    "no weights": (
        lambda path: save([NODE("Relu", ["x"], ["y"])], path),
        "holds a graph without parameters",
        "export it with its weights in it",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_cannot_be_read_says_why(name: str, tmp_path: Path) -> None:
    make, message, hint = REFUSED[name]
    path = tmp_path / "net.onnx"
    make(path)
    with pytest.raises(InputError) as refused:
        load(path)
    assert refused.value.message.startswith("net.onnx: ")
    assert message in refused.value.message
    assert hint in refused.value.hint


def test_a_node_that_no_rule_computes_is_named_when_the_network_is_traced(tmp_path: Path) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 0.5, 0.5], np.float32), "scales")
    resize = NODE("Resize", ["x", "", "scales"], ["resized"], "resize", mode="linear", antialias=1)
    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "weight")
    nodes = [resize, NODE("Conv", ["resized", "weight"], ["y"])]
    path = save(nodes, tmp_path / "net.onnx", [weight, scales], opsets={"": 19})
    with pytest.raises(InputError, match=r"net\.onnx: pfp does not read Resize resize: .*antialias=1") as refused:
        groups_of(path)
    assert "extract_model" in refused.value.hint


def test_weights_in_files_beside_it_are_read(tmp_path: Path) -> None:
    net = ZOO["plain"]
    path = write(net.module(), net.example()[0], tmp_path / "whole.onnx")
    model = onnx.load(path)
    onnx.save(model, tmp_path / "net.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with torch.no_grad():
        assert difference(read_onnx(tmp_path / "net.onnx")(*net.example()), net.module()(*net.example())) < 1e-4
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match=r"weights\.bin"):
        read_onnx(tmp_path / "net.onnx")


def test_a_file_that_onnxruntime_computes_differently_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = ZOO["plain"]
    path = write(net.module(), net.example()[0], tmp_path / "net.onnx")
    monkeypatch.setattr(open_step, "onnx_vs_torch", lambda *_: 0.1)
    with pytest.raises(CheckFailed, match=r"differs from onnxruntime by 1\.0e-01"):
        groups_of(path)


@shared
def test_trained_networks_in_onnx_are_those_in_torch() -> None:
    read, traced = (load(SHARED / "models" / f"resnet20.{kind}") for kind in ("onnx", "pt2"))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert difference(read.module(x), traced.module(x)) < 1e-4


class Amplified(nn.Module):
    """A network whose outputs turn the rounding of its sums into differences that can be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = conv(3, 16), nn.Conv2d(16, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x)).mul(2e4).sin()


def test_a_network_that_amplifies_rounding_may_differ_from_onnxruntime_by_that(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = write(Amplified().eval(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    source = load(path)
    graph = trace(source.module, (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),))
    assert onnx_vs_torch(path, graph, graph.example) > ONNX_TOLERANCE
    assert groups_of(path, source).groups


def test_an_output_that_a_file_lists_twice_is_computed_once(tmp_path: Path) -> None:
    path = write(ZOO["residual"].module(), ZOO["residual"].example()[0], tmp_path / "net.onnx")
    model = onnx.load(path)
    model.graph.output.append(model.graph.output[0])
    onnx.save(model, path)
    groups = groups_of(path)
    assert len(groups.labelled.graph.outputs) == 1
    assert groups.prunable


def test_nodes_that_are_called_like_words_of_python_are_followed(tmp_path: Path) -> None:
    path = write(ZOO["residual"].module(), ZOO["residual"].example()[0], tmp_path / "net.onnx")
    model = onnx.load(path)
    for node, name in zip(model.graph.node, ("class", "lambda", "None"), strict=False):
        node.name = name
    undotted = {each.name: each.name.replace(".", "_") for each in model.graph.initializer}
    for weight in model.graph.initializer:
        weight.name = undotted[weight.name]
    for node in model.graph.node:
        node.input[:] = [undotted.get(each, each) for each in node.input]
    onnx.save(model, path)
    names = {str(node.target) for node in groups_of(path).labelled.graph.nodes if node.op == "get_attr"}
    assert "class_.weight" in names
