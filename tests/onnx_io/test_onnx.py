"""ONNX files as input: read as onnxruntime reads them, and cut like any other network."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import pfpcli
import traced
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.cli import main as cli
from pfpcli.cutting.cut import cut
from pfpcli.errors import CheckFailed, InputError
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.jobs.inspect import inspect
from pfpcli.jobs.steps import open as open_step
from pfpcli.jobs.steps.open import trace_groups
from pfpcli.models.load import load
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io import write as onnx_write
from pfpcli.onnx_io.network import OnnxNetwork, read_onnx
from pfpcli.onnx_io.rewrite import CannotRewrite
from pfpcli.onnx_io.runtime import run_onnx, session
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings
from properties import assert_costs_as_predicted, assert_equals_masked, difference, random_drop
from zoo import ZOO, conv, head

SAMPLES = Path(__file__).parents[2] / "samples"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")

#: Networks of one input that torch's older exporter can write.
NETS = [name for name, net in ZOO.items() if len(net.inputs) == 1]


def write(module: nn.Module, example: Tensor, path: Path, free: tuple[str, ...] = ("n",), opset: int = 17) -> Path:
    """By the exporter that traces: sizes are computed in the file, as in most files that people have.

    Args:
        module: the network.
        example: one batch for it.
        path: the file.
        free: names for the dimensions that are free, "" for those that are not.
        opset: the version of the ops.
    """
    buffer = io.BytesIO()
    axes = {dim: name for dim, name in enumerate(free) if name}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is old, and of sizes that become constants
        torch.onnx.export(
            module, (example,), buffer, dynamo=False, opset_version=opset, input_names=["image"],
            dynamic_axes={"image": axes},
        )  # fmt: skip
    path.write_bytes(buffer.getvalue())
    return path


def groups_of(path: Path, source: LoadedModel | None = None) -> Groups:
    source = source or load(path)
    assert source.input_size is not None
    return trace_groups(source, source.input_size, NetworkSettings(model=path), Console())


#: Networks whose batch the file computes with, so that it is fixed when the file is read.
FIXED = {"writes_in_place": "the exporter writes to the places of a grid, which it makes of the sizes"}


# --- reading -------------------------------------------------------------------------------------------------------


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


def test_names_that_get_in_the_way_of_each_other_are_kept_apart(tmp_path: Path) -> None:
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


def save(
    nodes: list[onnx.NodeProto],
    path: Path,
    tensors: list[TensorProto] | None = None,
    *,
    output: str = "y",
    opsets: dict[str, int] | None = None,
    inputs: tuple[str, ...] = ("x",),
    sizes: Sequence[int | str] = ("n", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
) -> Path:
    """A file of these nodes, from images of 3 channels to something."""
    shown = [helper.make_tensor_value_info(name, kind, sizes) for name in inputs]
    given = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "net", shown, given, tensors or [])
    versions = [helper.make_opsetid(domain, version) for domain, version in (opsets or {"": 17}).items()]
    path.write_bytes(helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString())
    return path


def test_numbers_and_tensors_meet_as_they_may_in_the_file(tmp_path: Path) -> None:
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


def test_sizes_are_computed_while_the_network_is_written_down(tmp_path: Path) -> None:
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


# --- writing -------------------------------------------------------------------------------------------------------


def written(source: LoadedModel, groups: Groups, smaller: Graph, folder: Path) -> Path:
    """The file of a cut network with other weights; onnxruntime computes with it what torch computes."""
    with torch.no_grad():
        for tensor in smaller.module.parameters():
            tensor.mul_(1.01)
    assert isinstance(source.module, OnnxNetwork)
    onnx_write.save(source.module, groups.labelled.graph, smaller, folder / "smaller.onnx", smaller.example)
    return folder / "smaller.onnx"


def assert_same_graph(path: Path, written: Path) -> None:
    """The same interface, and no node that was not there, by name; those that are left are in the same order."""
    before, after = onnx.load(path), onnx.load(written)
    assert [each.SerializeToString() for each in before.opset_import] == [
        each.SerializeToString() for each in after.opset_import
    ]
    for there, left in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        names = [each.name for each in left]
        assert [each.SerializeToString() for each in there if each.name in names][:1] == [
            each.SerializeToString() for each in left
        ][:1]
    names = [node.name for node in before.graph.node]
    places = [names.index(node.name) for node in after.graph.node]
    assert places == sorted(places)


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


# --- what is not read ----------------------------------------------------------------------------------------------


def followed_by(
    nodes: Callable[[str], list[onnx.NodeProto]], path: Path, *, name: str = "plain", kind: int = TensorProto.INT64
) -> Path:
    """A network of the zoo with other nodes behind it, by what its output is called; their result is "end"."""
    net = ZOO[name]
    model = onnx.load(write(net.module(), net.example()[0], path))
    model.graph.node.extend(nodes(model.graph.output[0].name))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", kind, None))
    onnx.save(model, path)
    return path


def classes(output: str) -> list[onnx.NodeProto]:
    return [NODE("ArgMax", [output], ["end"], axis=1, keepdims=0)]


def above(output: str) -> list[onnx.NodeProto]:
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    return [
        NODE("Constant", [], ["half"], value=half),
        NODE("Greater", [output, "half"], ["is_above"]),
        NODE("Cast", ["is_above"], ["numbers"], to=TensorProto.INT32),
        NODE("NonZero", ["numbers"], ["end"]),
    ]


def picking(output: str) -> list[onnx.NodeProto]:
    return [NODE("NonZero", [output], ["places"]), NODE("Transpose", ["places"], ["end"], perm=[1, 0])]


def foreign(output: str) -> list[onnx.NodeProto]:
    return [NODE("Fused", [output], ["end"], domain="com.example")]


@pytest.mark.parametrize(
    ("nodes", "ops", "many"),
    [(picking, ("NonZero",), 2), (foreign, ("com.example.Fused",), 1), (above, ("NonZero",), 4), (classes, (), 1)],
)
def test_what_comes_after_an_op_without_a_rule_or_one_that_picks_stays_as_it_is(
    nodes: Callable[[str], list[onnx.NodeProto]], ops: tuple[str, ...], many: int, tmp_path: Path
) -> None:
    path = followed_by(nodes, tmp_path / "net.onnx")
    source = load(path)
    groups = groups_of(path, source)
    assert groups.labelled.graph.stops == ops
    assert source.names is not None
    assert len(source.names.outputs) == 1
    whole = group(label(trace(ZOO["plain"].module(), ZOO["plain"].example())))
    assert sorted(each.positions for each in groups.prunable) == sorted(each.positions for each in whole.prunable)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    assert_same_graph(path, after)
    tails = [[node.SerializeToString() for node in onnx.load(each).graph.node][-many:] for each in (path, after)]
    assert tails[0] == tails[1]
    if nodes is picking:
        x = ZOO["plain"].example(3)[0]
        assert run_onnx(session(after), [x])[0].shape == (
            np.count_nonzero(smaller.module(x).detach().numpy()),
            2,
        )


def test_what_is_read_in_branches_that_are_not_read_keeps_its_channels(tmp_path: Path) -> None:
    inside: list[str] = []

    def branching(output: str) -> list[onnx.NodeProto]:
        model = onnx.load(tmp_path / "net.onnx")
        inside.append(next(node.output[0] for node in model.graph.node if node.op_type == "Relu"))
        shown = [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, None)]
        branches = {
            f"{which}_branch": helper.make_graph([NODE("Identity", [name], ["chosen"])], which, [], shown)
            for which, name in (("then", output), ("else", inside[0]))
        }
        always = helper.make_tensor("always", TensorProto.BOOL, [], [True])
        return [NODE("Constant", [], ["condition"], value=always), NODE("If", ["condition"], ["end"], **branches)]

    path = followed_by(branching, tmp_path / "net.onnx", kind=TensorProto.FLOAT)
    source = load(path)
    assert source.names is not None
    assert inside[0] in source.names.outputs
    groups = groups_of(path, source)
    assert any("output" in (each.frozen or "") for each in groups.groups)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    x = ZOO["plain"].example(3)[0]
    (found,) = run_onnx(session(after), [x])
    with torch.no_grad():
        outputs = smaller.module(x)
    assert list(outputs) == [*source.names.outputs]
    assert difference(torch.from_numpy(found), next(iter(outputs.values()))) < 1e-4


def test_weights_that_are_read_behind_it_too_stay_whole_there(tmp_path: Path) -> None:
    weights: list[str] = []

    def reading(output: str) -> list[onnx.NodeProto]:
        model = onnx.load(tmp_path / "net.onnx")
        weights.extend(node.input[1] for node in model.graph.node if node.op_type == "Conv")
        return [NODE("Fused", [output, weights[1]], ["end"], domain="com.example")]

    path = followed_by(reading, tmp_path / "net.onnx")
    source = load(path)
    groups = groups_of(path, source)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = onnx.load(written(source, groups, smaller, tmp_path)).graph
    sizes = {each.name: tuple(each.dims) for each in after.initializer}
    layers = [node.input[1] for node in after.node if node.op_type == "Conv"]
    assert sizes[weights[1]] == next(tuple(x.dims) for x in onnx.load(path).graph.initializer if x.name == weights[1])
    assert np.prod(sizes[layers[1]]) < np.prod(sizes[weights[1]])


def named(output: str) -> list[onnx.NodeProto]:
    names = helper.make_tensor("names", TensorProto.STRING, [5], [b"a", b"b", b"c", b"d", b"e"])
    return [
        NODE("ArgMax", [output], ["index"], axis=1, keepdims=0),
        NODE("Constant", [], ["names"], value=names),
        NODE("Gather", ["names", "index"], ["end"]),
    ]


def test_names_of_classes_are_left_alone(tmp_path: Path) -> None:
    path = followed_by(named, tmp_path / "net.onnx", kind=TensorProto.STRING)
    source = load(path)
    groups = groups_of(path, source)
    assert groups.labelled.graph.stops == ()
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    (found,) = run_onnx(session(after), [ZOO["plain"].example(3)[0]])
    assert set(found) <= {*"abcde"}


def test_outputs_in_front_of_the_rest_and_behind_it_are_kept(tmp_path: Path) -> None:
    path = followed_by(picking, tmp_path / "net.onnx")
    model = onnx.load(path)
    scores = model.graph.node[-2].input[0]
    model.graph.output.insert(0, helper.make_tensor_value_info(scores, TensorProto.FLOAT, None))
    onnx.save(model, path)
    source = load(path)
    assert source.names is not None
    assert source.names.outputs == (scores,)
    groups = groups_of(path, source)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = onnx.load(written(source, groups, smaller, tmp_path))
    assert [each.name for each in after.graph.output] == [scores, "end"]


def test_what_no_output_needs_is_no_rest(tmp_path: Path) -> None:
    net = ZOO["plain"]
    model = onnx.load(write(net.module(), net.example()[0], tmp_path / "net.onnx"))
    inside = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
    model.graph.node.append(NODE("NonZero", [inside], ["unused"]))
    onnx.save(model, tmp_path / "net.onnx")
    source = load(tmp_path / "net.onnx")
    assert isinstance(source.module, OnnxNetwork)
    assert source.module.untouched.nodes == frozenset()
    assert source.names is not None
    assert len(source.names.outputs) == 1


def test_layers_behind_the_choice_of_a_nearest_one_are_said_to_stay(tmp_path: Path) -> None:
    """A codebook: what is nearest goes on through layers of its own."""
    generator = np.random.default_rng(0)
    weights = {"first": (8, 3, 1, 1), "distances": (5, 8, 1, 1), "codes": (5, 6), "last": (6, 4)}
    tensors = [
        numpy_helper.from_array(generator.normal(size=size).astype(np.float32), name) for name, size in weights.items()
    ]
    nodes = [
        NODE("Conv", ["x", "first"], ["a"]),
        NODE("Conv", ["a", "distances"], ["b"]),
        NODE("ArgMin", ["b"], ["nearest"], axis=1, keepdims=0),
        NODE("Gather", ["codes", "nearest"], ["code"]),
        NODE("MatMul", ["code", "last"], ["y"]),
    ]
    network = read_onnx(save(nodes, tmp_path / "net.onnx", tensors))
    assert network.untouched.ops == ("ArgMin",)
    assert network.untouched.parameters == 5 * 6 + 6 * 4


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


def test_strict_refuses_files_with_ops_that_no_rule_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(followed_by(picking, tmp_path / "net.onnx")), "--strict"]) == 1
    assert "--strict: no rule for NonZero" in capsys.readouterr().err
    assert cli.run(["inspect", str(followed_by(classes, tmp_path / "net.onnx")), "--strict"]) == 0


def test_equal_vectors_by_another_name_stay_whole_behind_it(tmp_path: Path) -> None:
    """Exporters write equal biases once, and have Identity give them the names they had."""
    generator = np.random.default_rng(0)
    weights = {"first": (8, 3, 3, 3), "second": (4, 8, 3, 3), "behind": (8, 4, 1, 1)}
    tensors = [
        numpy_helper.from_array(generator.normal(size=size).astype(np.float32), name) for name, size in weights.items()
    ]
    tensors.append(numpy_helper.from_array(np.zeros(8, np.float32), "zeros"))
    nodes = [
        NODE("Identity", ["zeros"], ["zeros_behind"], "alias"),
        NODE("Conv", ["x", "first", "zeros"], ["a"], "a"),
        NODE("Relu", ["a"], ["b"], "b"),
        NODE("Conv", ["b", "second"], ["c"], "c"),
        NODE("TopK", ["c", "two"], ["values", "places"], "pick", axis=3),
        NODE("Conv", ["values", "behind", "zeros_behind"], ["y"], "d"),
    ]
    tensors.append(numpy_helper.from_array(np.asarray([2], np.int64), "two"))
    path = save(nodes, tmp_path / "net.onnx", tensors)
    source = load(path)
    groups = groups_of(path, source)
    assert groups.labelled.graph.stops == ("TopK",)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    (found,) = run_onnx(session(after), [torch.randn(1, 3, 8, 8)])
    assert found.shape == (1, 8, 4, 2)


def test_sizes_that_are_read_behind_it_cannot_change(tmp_path: Path) -> None:
    def reading(output: str) -> list[onnx.NodeProto]:
        model = onnx.load(tmp_path / "net.onnx")
        inside = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
        return [NODE("Shape", [inside], ["sizes"]), NODE("Fused", [output, "sizes"], ["end"], domain="com.example")]

    path = followed_by(reading, tmp_path / "net.onnx")
    source = load(path)
    groups = groups_of(path, source)
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    with pytest.raises(CannotRewrite, match="reads sizes"):
        written(source, groups, smaller, tmp_path)


def test_images_with_their_channels_last_go_in_as_they_did(tmp_path: Path) -> None:
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


def test_many_channels_of_narrow_images_are_first(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((4, 15, 1, 1), np.float32), "weight")
    path = save([NODE("Conv", ["x", "weight"], ["y"])], tmp_path / "net.onnx", [weight], sizes=["n", 15, 5, 3])
    assert load(path).input_size == (15, 5, 3)


# --- what is refused -----------------------------------------------------------------------------------------------

NODE = helper.make_node
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


def test_a_node_that_no_rule_computes_is_named_when_the_network_is_followed(tmp_path: Path) -> None:
    pool = NODE("AveragePool", ["x"], ["pooled"], "pool", kernel_shape=[2, 2], dilations=[2, 2])
    weight = numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "weight")
    path = save([pool, NODE("Conv", ["pooled", "weight"], ["y"])], tmp_path / "net.onnx", [weight], opsets={"": 19})
    with pytest.raises(InputError, match=r"net\.onnx: pfp does not read AveragePool pool: dilations") as refused:
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


def test_what_onnxruntime_understands_differently_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = ZOO["plain"]
    path = write(net.module(), net.example()[0], tmp_path / "net.onnx")
    monkeypatch.setattr(open_step, "onnx_vs_torch", lambda *_: 0.1)
    with pytest.raises(CheckFailed, match=r"differs from onnxruntime by 1\.0e-01"):
        groups_of(path)


# --- all the way ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample network as an ONNX file."""
    module = load(SAMPLES / "model.pt").module
    return write(module, torch.randn(1, 3, 32, 32), tmp_path_factory.mktemp("onnx") / "model.onnx")


def test_an_onnx_file_is_cut_and_recovered_and_written_with_its_names(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = pfpcli.compress(sample, SAMPLES / "images", keep=0.4, allocate="pfp", out=out, cache=False).record
    assert run.model["kind"] == "onnx"
    assert run.quality.after > 0.85
    assert [each.method for each in run.recovery] == ["lsq"]
    written = onnx.load(out / "model.onnx")
    original = onnx.load(sample)
    assert [each.name for each in written.graph.input] == ["image"]
    assert [each.name for each in written.graph.output] == [each.name for each in original.graph.output]
    assert (out / "model.onnx").stat().st_size < 0.5 * sample.stat().st_size


def test_training_the_outcome_keeps_the_names(sample: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    pfpcli.compress(sample, SAMPLES / "images", keep=0.5, allocate="uniform", recover=(), out=run, cache=False)
    pfpcli.finetune(run, data=SAMPLES / "images", epochs=1, out=tuned)
    written = [onnx.load(path / "model.onnx").graph for path in (run, tuned)]
    for ends in ([*graph.input, *graph.output] for graph in written):
        assert [each.name for each in ends] == ["image", onnx.load(sample).graph.output[0].name]


def test_a_file_that_ends_in_what_is_not_read_is_cut_and_the_run_says_so(sample: Path, tmp_path: Path) -> None:
    model = onnx.load(sample)
    model.graph.node.extend(picking(model.graph.output[0].name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "net.onnx")
    run = pfpcli.compress(
        tmp_path / "net.onnx", SAMPLES / "images", keep=0.5, allocate="uniform", recover=(), out=tmp_path / "run",
        cache=False,
    ).record  # fmt: skip
    assert any(
        "up to NonZero" in each and "2 nodes, 0 parameters) are not cut or counted;" in each for each in run.warnings
    )
    assert run.quality.metric == "accuracy"  # one vector of scores is what goes in there
    assert [node.op_type for node in onnx.load(tmp_path / "run" / "model.onnx").graph.node][-2:] == [
        "NonZero", "Transpose",
    ]  # fmt: skip
    pfpcli.finetune(tmp_path / "run", data=SAMPLES / "images", epochs=1, out=tmp_path / "tuned")
    assert_same_graph(tmp_path / "run" / "model.onnx", tmp_path / "tuned" / "model.onnx")


def test_inspect_says_up_to_where_a_file_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = followed_by(picking, tmp_path / "net.onnx")
    assert cli.run(["inspect", str(path)]) == 0
    assert "followed up to NonZero: these nodes and all later nodes stay" in " ".join(capsys.readouterr().out.split())


def test_a_graph_that_cannot_be_written_into_is_exported_and_the_run_says_what_is_lost(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(sample)
    model.graph.node.extend(classes(model.graph.output[0].name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "net.onnx")

    def cannot(*_: object) -> onnx.ModelProto:
        raise CannotRewrite("Reshape 7")

    monkeypatch.setattr(onnx_write, "rewrite", cannot)
    run = pfpcli.compress(
        tmp_path / "net.onnx", SAMPLES / "images", keep=0.5, allocate="uniform", recover=(), out=tmp_path / "run",
    ).record  # fmt: skip
    (said,) = (each for each in run.warnings if "torch's export" in each)
    assert "which ends before the untouched nodes (Reshape 7)" in said


def test_single_weights_of_an_onnx_file_become_zeros_in_its_graph(sample: Path, tmp_path: Path) -> None:
    run = pfpcli.sparsify(sample, SAMPLES / "images", keep=0.6, out=tmp_path / "run").record
    assert run.quality.after > 0.8
    after = tmp_path / "run" / "model.onnx"
    assert_same_graph(sample, after)
    zeros, total = 0, 0
    for each in onnx.load(after).graph.initializer:
        if len(each.dims) > 1:
            array = numpy_helper.to_array(each)
            zeros, total = zeros + int((array == 0).sum()), total + array.size
    assert 0.35 < zeros / total < 0.45


def test_inspect_takes_an_onnx_file(sample: Path) -> None:
    found = inspect(NetworkSettings(model=sample), Console())
    assert found.model["kind"] == "onnx"
    assert sum(not each.frozen_reason for each in found.groups) == 5


@shared
@pytest.mark.parametrize("path", sorted(SHARED.glob("wild/*.onnx")), ids=lambda path: path.stem)
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


@shared
def test_trained_networks_in_onnx_are_those_in_torch() -> None:
    read, traced = (load(SHARED / "models" / f"resnet20.{kind}") for kind in ("onnx", "pt2"))
    x = torch.randn(5, 3, 32, 32)
    with torch.no_grad():
        assert difference(read.module(x), traced.module(x)) < 1e-4
