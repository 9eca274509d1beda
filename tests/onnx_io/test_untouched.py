"""Nodes without a rule, nodes that select by the order of values, and nodes after them stay untouched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from onnx_files import (
    NODE,
    assert_same_graph,
    class_index,
    followed_by,
    groups_of,
    save,
    selecting,
    write,
    written,
)
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cli import main as cli
from pfpcli.cutting.cut import cut
from pfpcli.graph.trace import trace
from pfpcli.models.load import load
from pfpcli.onnx_io.network import OnnxNetwork, read_onnx
from pfpcli.onnx_io.rewrite import CannotRewrite
from pfpcli.onnx_io.runtime import run_onnx, session
from properties import difference, random_drop
from zoo import ZOO, conv


def above(output: str) -> list[onnx.NodeProto]:
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    return [
        NODE("Constant", [], ["half"], value=half),
        NODE("Greater", [output, "half"], ["is_above"]),
        NODE("Cast", ["is_above"], ["numbers"], to=TensorProto.INT32),
        NODE("NonZero", ["numbers"], ["end"]),
    ]


def other_domain(output: str) -> list[onnx.NodeProto]:
    return [NODE("Fused", [output], ["end"], domain="com.example")]


@pytest.mark.parametrize(
    ("nodes", "ops", "many"),
    [
        (selecting, ("NonZero",), 2),
        (other_domain, ("com.example.Fused",), 1),
        (above, ("NonZero",), 4),
        (class_index, (), 1),
    ],
)
def test_nodes_after_an_op_without_a_rule_or_one_that_selects_stay_untouched(
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
    if nodes is selecting:
        x = ZOO["plain"].example(3)[0]
        assert run_onnx(session(after), [x])[0].shape == (
            np.count_nonzero(smaller.module(x).detach().numpy()),
            2,
        )


def test_values_that_untouched_branches_read_keep_their_channels(tmp_path: Path) -> None:
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


def test_weights_that_an_untouched_node_reads_too_stay_whole_there(tmp_path: Path) -> None:
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


def test_names_of_classes_stay_untouched(tmp_path: Path) -> None:
    path = followed_by(named, tmp_path / "net.onnx", kind=TensorProto.STRING)
    source = load(path)
    groups = groups_of(path, source)
    assert groups.labelled.graph.stops == ()
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    (found,) = run_onnx(session(after), [ZOO["plain"].example(3)[0]])
    assert set(found) <= {*"abcde"}


def test_outputs_before_and_after_untouched_nodes_are_kept(tmp_path: Path) -> None:
    path = followed_by(selecting, tmp_path / "net.onnx")
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


def test_nodes_that_no_output_needs_are_not_untouched_but_dropped(tmp_path: Path) -> None:
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


def test_layers_after_the_selection_of_the_nearest_code_are_mentioned(tmp_path: Path) -> None:
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


def test_equal_vectors_of_another_name_stay_whole_for_an_untouched_node(tmp_path: Path) -> None:
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


def test_sizes_that_an_untouched_node_reads_cannot_change(tmp_path: Path) -> None:
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


def test_strict_refuses_files_with_ops_that_no_rule_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["inspect", str(followed_by(selecting, tmp_path / "net.onnx")), "--strict"]) == 1
    assert "--strict: no rule for NonZero" in capsys.readouterr().err
    assert cli.run(["inspect", str(followed_by(class_index, tmp_path / "net.onnx")), "--strict"]) == 0


class Recurrent(nn.Module):
    """Convolutions, and a recurrent layer over the columns of their maps."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 12), conv(12, 6))
        self.rnn = kind(6 * 8, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(self.body(x).flatten(1, 2).transpose(1, 2))[0]


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_the_channels_in_front_of_a_recurrent_layer_are_cut_and_it_stays_as_it_is(
    kind: type[nn.RNNBase], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    path = write(Recurrent(kind).eval(), torch.randn(1, 3, 8, 8), tmp_path / "net.onnx", free=())
    source = load(path)
    groups = groups_of(path, source)
    assert 12 in [group.size for group in groups.prunable]
    smaller = cut(groups.labelled, groups.alive(random_drop(groups, 0))).graph
    after = written(source, groups, smaller, tmp_path)
    assert_same_graph(path, after)
    before, left = (onnx.load(each).graph.node for each in (path, after))
    assert [n.op_type for n in left][-3:] == [n.op_type for n in before][-3:]
