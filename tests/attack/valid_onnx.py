"""Valid ONNX files: small networks, changed so that onnxruntime still runs them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
from mutations import NAMES
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from small_onnx import network

_Change = Callable[[onnx.ModelProto, random.Random], None]
#: Numbers that weights are multiplied by.
_FACTORS = (0.0, -1.0, 1e-38, 1e-10, 1e4, 1e10, 1e30, float("inf"), float("nan"))
_POINTWISE = ("Relu", "Sigmoid", "Tanh", "Elu", "LeakyRelu", "HardSigmoid", "Softplus", "Abs", "Exp", "Neg", "Identity")


def made(seed: int) -> onnx.ModelProto:
    """Return a network with up to six changes; a change after which onnxruntime does not run the file is undone."""
    draw = random.Random(seed)
    model = network(draw)
    assert is_run(model)
    for _ in range(draw.choice((1, 2, 3, 4, 6))):
        before = model.SerializeToString()
        draw.choice(CHANGES)(model, draw)
        if not is_run(model):
            model = onnx.load_from_string(before)
    return model


def is_run(model: onnx.ModelProto) -> bool:
    """Whether a file is valid and onnxruntime computes its outputs; their ranks are written into the file."""
    try:
        for value, found in zip(model.graph.output, run(model, image(model)), strict=True):
            value.CopyFrom(helper.make_tensor_value_info(value.name, 1, [None] * found.ndim))
        onnx.checker.check_model(model)
    except Exception:
        return False
    return True


def image(model: onnx.ModelProto) -> NDArray[np.float32]:
    """Return two random inputs of a network."""
    return np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


def run(model: onnx.ModelProto, x: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the outputs that onnxruntime computes, without rewriting the graph first."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: x})
    return found


def _rename(model: onnx.ModelProto, draw: random.Random) -> None:
    graph = model.graph
    old = draw.choice([name for node in graph.node for name in (*node.input, *node.output)])
    new = draw.choice((*NAMES[:-1], f"{old}.weight", "weight", "0", "input", "model/conv:0", old.upper()))
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = new if value.name == old else value.name


def _rename_nodes(model: onnx.ModelProto, draw: random.Random) -> None:
    for node in model.graph.node:
        node.name = draw.choice((*NAMES, "", "same", node.name))


def _reorder(model: onnx.ModelProto, draw: random.Random) -> None:
    left, known, order = list(model.graph.node), {value.name for value in model.graph.input}, []
    known |= {value.name for value in model.graph.initializer} | {""}
    while left:
        node = draw.choice([each for each in left if known.issuperset(each.input)])
        left.remove(node)
        order.append(node)
        known.update(node.output)
    del model.graph.node[:]
    model.graph.node.extend(order)


def _insert(model: onnx.ModelProto, draw: random.Random) -> None:
    """Put one or two nodes that change nothing in front of an input of a node."""
    graph = model.graph
    at = draw.randrange(len(graph.node))
    slots = [i for i, name in enumerate(graph.node[at].input) if name]
    if not slots:
        return
    slot = draw.choice(slots)
    name, new = graph.node[at].input[slot], f"inserted{len(graph.node)}"
    chains: list[list[tuple[str, dict[str, object]]]] = [
        [("Identity", {})], [("Dropout", {})], [("Neg", {}), ("Neg", {})], [("Cast", {"to": 1})],
        [("Cast", {"to": 11}), ("Cast", {"to": 1})],
        [("Transpose", {"perm": [0, 2, 3, 1]}), ("Transpose", {"perm": [0, 3, 1, 2]})],
        [("Transpose", {"perm": [1, 0]}), ("Transpose", {"perm": [1, 0]})], [("Flatten", {})],
    ]  # fmt: skip
    made, last = [], name
    for i, (op, attributes) in enumerate(draw.choice(chains)):
        made.append(helper.make_node(op, [last], [f"{new}.{i}"], **attributes))
        last = f"{new}.{i}"
    graph.node[at].input[slot] = last
    nodes = [*graph.node[:at], *made, *graph.node[at:]]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _arithmetic(model: onnx.ModelProto, draw: random.Random) -> None:
    """Put a sum, a product or a quotient with a constant behind a node."""
    graph, node = model.graph, draw.choice(model.graph.node)
    name = f"constant{len(graph.node)}"
    value = np.full(draw.choice(((), (1,), (1, 1, 1, 1))), draw.choice((0.0, 1.0, -0.5, 2.0)), np.float32)
    graph.initializer.append(numpy_helper.from_array(value, name))
    inner = f"{node.output[0]}.inner"
    inputs = draw.choice(([inner, name], [name, inner]))
    added = helper.make_node(draw.choice(("Add", "Mul", "Sub", "Max", "Div")), inputs, [node.output[0]])
    node.output[0] = inner
    at = [each.output[0] for each in graph.node].index(inner)
    graph.node.insert(at + 1, added)


def _double(model: onnx.ModelProto, draw: random.Random) -> None:
    """Compute a node twice, and let some of its readers read the second one."""
    graph = model.graph
    at = draw.randrange(len(graph.node))
    twin = onnx.NodeProto.FromString(graph.node[at].SerializeToString())
    names = {name: f"{name}.twin" for name in twin.output}
    twin.output[:] = list(names.values())
    graph.node.insert(at + 1, twin)
    for node in list(graph.node)[at + 2 :]:
        node.input[:] = [names.get(name, name) if draw.random() < 0.5 else name for name in node.input]


def _attribute(model: onnx.ModelProto, draw: random.Random) -> None:
    """Give an attribute another value within its range."""
    attributes = [each for node in model.graph.node for each in node.attribute]
    if not attributes:
        return
    each = draw.choice(attributes)
    if each.name == "pads":
        each.ints[:] = draw.choice(([0] * 4, [1] * 4, [2] * 4, [1, 0, 0, 1]))
    elif each.ints:
        each.ints[:] = [draw.choice((1, 2, 3))] * len(each.ints)
    elif each.HasField("i"):
        each.i = draw.choice((-1, 0, 1, 2, 3))
    elif each.HasField("f"):
        each.f = draw.choice((0.0, 1e-5, 0.3, 1.0, -2.0))


def _more_attributes(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    more: dict[str, list[dict[str, object]]] = {
        "Conv": [{"dilations": [2, 2]}, {"strides": [2, 2]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}],
        "ConvTranspose": [{"output_padding": [1, 1]}, {"pads": [1, 0, 0, 1]}],
        "MaxPool": [{"ceil_mode": 1}, {"pads": [1, 1, 1, 1]}], "AveragePool": [{"count_include_pad": 1}],
        "Gemm": [{"alpha": 0.5}, {"beta": 2.0}], "BatchNormalization": [{"epsilon": 0.1}],
        "LeakyRelu": [{"alpha": -0.2}], "Elu": [{"alpha": 0.5}],
    }  # fmt: skip
    if node.op_type in more:
        (name, value), *_ = draw.choice(more[node.op_type]).items()
        kept = [each for each in node.attribute if each.name not in (name, "pads" if name == "auto_pad" else "")]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _pointwise(model: onnx.ModelProto, draw: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.op_type in _POINTWISE]
    if nodes:
        node = draw.choice(nodes)
        del node.attribute[:]
        node.op_type = draw.choice(_POINTWISE)


def _opset(model: onnx.ModelProto, draw: random.Random) -> None:
    model.opset_import[0].version = draw.choice((13, 14, 15, 16, 17, 18, 19, 20, 21))
    model.ir_version = draw.choice((7, 8, 9, 10))


def _scaled(model: onnx.ModelProto, draw: random.Random) -> None:
    """Multiply a tensor, one of its channels or one of its numbers, or make two of its channels equal."""
    floats = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT]
    tensor = draw.choice(floats)
    value = numpy_helper.to_array(tensor).copy()
    if not value.size or not value.shape:
        return
    row = draw.randrange(len(value))
    with np.errstate(all="ignore"):
        part = draw.choice(("all", "channel", "number", "equal"))
        if part == "equal":
            value[row] = value[0]
        elif part == "all":
            value *= np.float32(draw.choice(_FACTORS))
        elif part == "channel":
            value[row] *= np.float32(draw.choice(_FACTORS))
        else:
            value.reshape(-1)[row] *= np.float32(draw.choice(_FACTORS))
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))


def _no_bias(model: onnx.ModelProto, draw: random.Random) -> None:
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "ConvTranspose")]
    node = draw.choice(nodes)
    if len(node.input) == 3:
        if draw.random() < 0.5:
            node.input[2] = ""
        else:
            del node.input[2]


def _as_constant(model: onnx.ModelProto, draw: random.Random) -> None:
    """Turn an initializer into a node, or into an input with a default as well."""
    tensor = draw.choice(model.graph.initializer)
    if draw.random() < 0.5:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        return
    value = onnx.TensorProto.FromString(tensor.SerializeToString())
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, helper.make_node("Constant", [], [value.name], value=value))


def _shared(model: onnx.ModelProto, draw: random.Random) -> None:
    """Let two tensors of the same shape be one."""
    a, b = draw.choice(model.graph.initializer), draw.choice(model.graph.initializer)
    if a.dims == b.dims:
        for node in model.graph.node:
            node.input[:] = [a.name if name == b.name else name for name in node.input]


def _output(model: onnx.ModelProto, draw: random.Random) -> None:
    """Make a value inside, or the input itself, an output as well."""
    node = draw.choice(model.graph.node)
    name = node.output[0]
    if draw.random() < 0.2:
        name = "same"
        model.graph.node.append(helper.make_node("Identity", [model.graph.input[0].name], [name]))
    model.graph.output.append(helper.make_tensor_value_info(name, 1, None))


def _unused(model: onnx.ModelProto, draw: random.Random) -> None:
    node = draw.choice(model.graph.node)
    model.graph.node.append(helper.make_node("Sin", [node.output[0]], ["unused"]))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "nothing"))


def _free(model: onnx.ModelProto, draw: random.Random) -> None:
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = draw.choice(("h", "w", "batch", *NAMES[:4]))


CHANGES: tuple[_Change, ...] = (
    _rename, _rename_nodes, _reorder, _insert, _insert, _arithmetic, _double, _attribute, _more_attributes, _pointwise,
    _opset, _scaled, _no_bias, _as_constant, _shared, _output, _unused, _free,
)  # fmt: skip
