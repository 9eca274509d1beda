"""Layers as operators, their small models, and the stopwatch."""

from __future__ import annotations

import pytest

from pfpcli.channels.cost import Predictor
from pfpcli.latency import stopwatch
from pfpcli.latency.layers import kind_of, layers_of
from pfpcli.latency.operators import Operator
from pfpcli.latency.prediction import grids_of
from pfpcli.latency.small_models import model_of, parts_of
from pfpcli.latency.stopwatch import PROVIDER, time_nodes, time_operators
from traced import grouped

#: A network for each kind of layer: convolutions of all sorts, norms, sums, gates, poolings, joins, attention.
NETS = ("residual", "depthwise", "grouped", "grouped_transposed", "se_gate", "concat", "norms", "attention", "fpn",
        "split_attention", "conv1d", "conv3d", "flatten_linear", "audio", "option_a", "pixel_shuffle",
        "ghost")  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each model twice: the times do not matter here."""
    for name in ("WARM_UP", "MOST_RUNS", "FEWEST_RUNS"):
        monkeypatch.setattr(stopwatch, name, 1)


@pytest.mark.parametrize("net", NETS)
def test_every_layer_runs_at_every_width_of_its_grid(net: str) -> None:
    groups = grouped(net)
    grids, _ = grids_of(groups, Predictor(groups))
    operators = list({each.key: each for grid in grids for each in grid.operators}.values())
    parts = [[operators[i] for i in part] for part in parts_of(operators)]
    found = [time_operators(model_of(part).SerializeToString(), 1, PROVIDER) for part in parts]
    # no operator is folded away but permutations of tensors that other ones undo
    assert sum(map(len, found)) >= len(operators) - sum(each.kind == "permute" for each in operators)


def test_a_convolution_its_norm_and_its_activation_are_one_layer() -> None:
    layers, unknown = layers_of(grouped("plain").labelled.graph)
    convolutions = [layer for layer in layers if kind_of(layer.node) == "conv2d"]
    assert convolutions
    assert all([kind_of(node) for node in layer.then] == ["relu"] for layer in convolutions)
    assert not unknown
    assert not any(kind_of(layer.node) in ("batch_norm", "relu") for layer in layers)


def test_a_sum_is_computed_with_the_convolution_that_comes_last() -> None:
    layers, _ = layers_of(grouped("projection").labelled.graph)
    with_sum = [layer for layer in layers if "add" in map(kind_of, layer.then)]
    assert len(with_sum) == 1
    assert not any(kind_of(layer.node) == "add" for layer in layers)


def test_an_op_without_a_model_is_named() -> None:
    _, unknown = layers_of(grouped("unknown_op").labelled.graph)
    assert [str(node.target) for node in unknown] == ["aten.prod.dim_int"]


def test_wider_operators_take_longer() -> None:
    def conv(width: int) -> Operator:
        shape = (1, width, 28, 28)
        return Operator("conv2d", (shape, (width, width, 3, 3)), 1, shape, (("padding", 1),))

    model = model_of([conv(8), conv(128)]).SerializeToString()
    times = time_operators(model, 1, PROVIDER)
    assert times[1] > times[0] > 0


def test_operators_that_begin_alike_are_each_computed() -> None:
    sizes = ((1, 16, 8, 8), (16, 16, 3, 3))
    settings = (("stride", (1, 1)), ("padding", (1, 1)))
    alike = [Operator("conv2d", sizes, 1, (1, 16, 8, 8), settings, then) for then in (("relu",), ("add", "relu"), ())]
    model = model_of(alike).SerializeToString()
    nodes = [
        each for each in stopwatch._events(model, 1, PROVIDER, without=stopwatch.MERGING) if each.get("cat") == "Node"
    ]
    convolutions = {each["name"][:2] for each in nodes if each["args"]["op_name"] == "Conv"}
    assert {"0/", "1/", "2/"} <= convolutions


def test_nodes_with_weights_are_timed_with_their_shapes() -> None:
    shape = (1, 16, 14, 14)
    model = model_of(
        [Operator("conv2d", (shape, (32, 16, 3, 3)), 1, (1, 32, 14, 14), (("padding", 1),))]
    ).SerializeToString()
    shapes = [(node.read, node.made) for node in time_nodes(model, (1, 4, 14, 14), 1, PROVIDER)]
    made_first = (16, 14, 14)
    assert shapes == [((4, 14, 14), made_first), (made_first, (32, 14, 14))]  # what makes its input, and the operator


def test_equal_layers_have_the_same_key_and_others_do_not() -> None:
    shape = (1, 8, 14, 14)
    a, b = (Operator("relu", (shape,), 0, shape) for _ in range(2))
    assert a.key == b.key
    assert a.key != Operator("relu", ((1, 9, 14, 14),), 0, (1, 9, 14, 14)).key
