"""Small models: ONNX models of operators, for the stopwatch.

A model computes several operators one after the other, so that each finds the caches as cold as in a network. The
inputs of an operator come from 1 x 1 convolutions: they then have the layout that onnxruntime prefers. Weights are
computed by `ConstantOfShape`, which onnxruntime folds, so that a model is small however large its weights are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from pfpcli.latency.conversion import FLOAT32, Conversion
from pfpcli.latency.operators import Operator

#: A model has at most so many operators, and tensors of so many bytes.
_MOST_OPERATORS, _MOST_BYTES = 40, 1 << 28
#: The opset of the models, and its IR version.
_OPSET, _IR = 20, 9
#: Channels of the input of a model; fewer than a block, so that convolutions of it run in the blocked layout.
_CHANNELS = 4
_VALUE = 0.01


def is_known(kind: str) -> bool:
    """Whether there is a model of a kind of operator."""
    return kind in _KINDS


def parts_of(operators: Sequence[Operator]) -> Iterator[list[int]]:
    """Yield the indices of the operators that one model computes; operators with the same inputs come together.

    Args:
        operators: of kinds that `is_known`.
    """
    order = sorted(range(len(operators)), key=lambda i: (operators[i].shapes, i))
    part: list[int] = []
    used = 0
    for i in order:
        size = 4 * sum(math.prod(shape) for shape in (*operators[i].shapes, operators[i].made))
        if part and (len(part) == _MOST_OPERATORS or used + size > _MOST_BYTES):
            yield part
            part, used = [], 0
        part.append(i)
        used += size
    if part:
        yield part


def model_of(operators: Sequence[Operator], conversion: Conversion = FLOAT32) -> onnx.ModelProto:
    """Return a model that computes some operators; names of the nodes of operator i begin with "<i>/".

    Args:
        operators: one of the parts of `parts_of`.
        conversion: to the precision in which they are timed.
    """
    made = _Nodes()
    outputs = [made.operator(f"{i}/", each) for i, each in enumerate(operators)]
    if conversion is not FLOAT32:
        outputs = [made.reader(each) for each in outputs]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(made.nodes, "operators", made.inputs, infos, made.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR
    return conversion.convert(model)


class _Nodes:
    """The nodes of a model that is being made."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._prefix = ""
        self._known: dict[tuple[int, ...], str] = {}
        self._inputs: dict[tuple[int, ...], str] = {}

    def operator(self, prefix: str, operator: Operator) -> str:
        """Add an operator and what is behind it; returns the name of its result."""
        self._prefix = prefix
        active = len(operator.shapes) - operator.stored
        given = [
            self._activation(shape) if i < active else self._stored(shape) for i, shape in enumerate(operator.shapes)
        ]
        made = _KINDS[operator.kind](self, operator, given)
        for kind in operator.then:
            if kind == "add":
                made = self.add("Add", made, self._activation(operator.made))
            else:
                made = _KINDS[kind](self, operator, [made])
        return made

    def reader(self, made: str) -> str:
        """Add a node that takes no time and reads a result: a quantiser leaves what it reads in 8 bits."""
        self._prefix = "read"
        return self.add("Reshape", made, self.constant([-1]))

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of the operator; returns the name of its result."""
        name = f"{self._prefix}{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, values: Any, dtype: Any = np.int64) -> str:
        """Add a constant with its values."""
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def _stored(self, shape: tuple[int, ...]) -> str:
        """Add a constant tensor of one number; small models hold its shape alone.

        Each tensor has another number: tools merge what is computed from the same ones.
        """
        shape_name, name = self.constant(shape), f"stored{len(self.nodes)}"
        number = _VALUE * (1 + len(self.nodes) / 1024)
        value = numpy_helper.from_array(np.asarray([number], np.float32))
        self.nodes.append(helper.make_node("ConstantOfShape", [shape_name], [name], name=name, value=value))
        return name

    def _activation(self, shape: tuple[int, ...]) -> str:
        """Add a tensor that is computed, or return one of the same shape."""
        if shape not in self._known:
            self._known[shape] = self._fed(shape)
        return self._known[shape]

    def _fed(self, shape: tuple[int, ...]) -> str:
        if len(shape) != 4:
            return self._input(shape)
        narrow = (shape[0], _CHANNELS, *shape[2:])
        if narrow not in self._inputs:
            self._inputs[narrow] = self._input(narrow)
        source = self._inputs[narrow]
        name, weight = f"fed{len(self.nodes)}", self._stored((shape[1], _CHANNELS, 1, 1))
        self.nodes.append(helper.make_node("Conv", [source, weight], [name], name=name))
        return name

    def _input(self, shape: tuple[int, ...]) -> str:
        name = f"input{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name


#: Adds the nodes of an operator, from the names of the tensors that it reads; returns the name of the result.
_Emit = Callable[[_Nodes, Operator, list[str]], str]


def _conv(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    settings, weight = dict(operator.settings), operator.shapes[1]
    spatial = len(weight) - 2
    transposed = "transpose" in operator.kind or bool(settings.get("transposed"))
    read, made = operator.shapes[0][1], operator.made[1]
    attributes = {
        "strides": _each(settings.get("stride", 1), spatial),
        "dilations": _each(settings.get("dilation", 1), spatial),
        "group": made // weight[1] if transposed else read // weight[1],
    }
    padding = settings.get("padding", 0)
    if isinstance(padding, str):
        attributes["auto_pad"] = "SAME_UPPER" if padding == "same" else "VALID"
    else:
        attributes["pads"] = _each(padding, spatial) * 2
    if transposed:
        attributes["output_padding"] = _each(settings.get("output_padding", 0), spatial)
    bias = nodes._stored((made,))
    return nodes.add("ConvTranspose" if transposed else "Conv", *given, bias, **attributes)


def _linear(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    bias = nodes._stored((operator.made[-1],))
    if len(operator.shapes[0]) == 2:
        return nodes.add("Gemm", *given, bias, transB=1)
    turned = nodes.add("Transpose", given[1], perm=[1, 0])
    return nodes.add("Add", nodes.add("MatMul", given[0], turned), bias)


def _pool(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    settings = dict(operator.settings)
    spatial = len(operator.shapes[0]) - 2
    kernel = _each(settings["kernel_size"], spatial)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": _each(settings.get("stride", kernel), spatial),
        "pads": _each(settings.get("padding", 0), spatial) * 2,
        "ceil_mode": int(settings.get("ceil_mode", False)),
    }
    return nodes.add("MaxPool" if operator.kind.startswith("max") else "AveragePool", *given, **attributes)


def _mean(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    """Emit the mean over all positions, whatever the call averages: most networks average nothing else."""
    return nodes.add("GlobalAveragePool", *given)


def _batch_norm(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    each = [nodes._stored((operator.shapes[0][1],)) for _ in range(4)]
    return nodes.add("BatchNormalization", given[0], *each)


def _layer_norm(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    return nodes.add("LayerNormalization", given[0], nodes._stored(operator.shapes[0][-1:]))


def _group_norm(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    """Emit what the exporter of torch writes: an instance norm of the groups, then the scale and shift of channels."""
    channels, dims = operator.shapes[0][1], len(operator.shapes[0])
    groups = math.gcd(channels, int(dict(operator.settings)["num_groups"]))
    joined = nodes.add("Reshape", given[0], nodes.constant([operator.shapes[0][0], groups, -1]))
    normed = nodes.add("InstanceNormalization", joined, nodes._stored((groups,)), nodes._stored((groups,)))
    parted = nodes.add("Reshape", normed, nodes.constant(operator.shapes[0]))
    scale, shift = (nodes._stored((channels, *(1,) * (dims - 2))) for _ in range(2))
    return nodes.add("Add", nodes.add("Mul", parted, scale), shift)


def _attention(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    """Emit softmax(q k^T) v; a mask takes next to no time."""
    query, key, value = given[:3]
    dims = len(operator.shapes[1])
    turned = nodes.add("Transpose", key, perm=[*range(dims - 2), dims - 1, dims - 2])
    shares = nodes.add("Softmax", nodes.add("MatMul", query, turned), axis=-1)
    return nodes.add("MatMul", shares, value)


def _pixel_shuffle(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    factor = int(dict(operator.settings)["upscale_factor"])
    return nodes.add("DepthToSpace", given[0], blocksize=factor, mode="CRD")


def _slice(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    """Emit a slice of the same size; where it begins does not matter."""
    return nodes.add("Slice", given[0], nodes.constant([0] * len(operator.made)), nodes.constant(operator.made))


def _pad(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    """Emit as much padding, all of it at the ends."""
    read = operator.shapes[0]
    grown = [max(0, made - size) for made, size in zip(operator.made, read, strict=True)]
    return nodes.add("Pad", given[0], nodes.constant([0] * len(read) + grown))


def _prelu(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    slopes = nodes._stored((operator.shapes[0][1], *(1,) * (len(operator.shapes[0]) - 2)))
    return nodes.add("PRelu", given[0], slopes)


def _resize(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    mode = "nearest" if "nearest" in operator.kind else "linear" if "linear" in operator.kind else "cubic"
    return nodes.add("Resize", given[0], "", "", nodes.constant(operator.made), mode=mode)


def _binary(op: str) -> _Emit:
    def emit(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
        other = given[1] if len(given) > 1 else nodes.constant(_VALUE, np.float32)
        return nodes.add(op, given[0], other)

    return emit


def _unary(op: str, **attributes: Any) -> _Emit:
    return lambda nodes, operator, given: nodes.add(op, given[0], **attributes)


def _clip(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    return nodes.add("Clip", given[0], nodes.constant(0, np.float32), nodes.constant(6, np.float32))


def _silu(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    return nodes.add("Mul", given[0], nodes.add("Sigmoid", given[0]))


def _transpose(nodes: _Nodes, operator: Operator, given: list[str]) -> str:
    settings, dims = dict(operator.settings), len(operator.made)
    order = list(settings.get("dims", range(dims)))
    if operator.kind == "transpose":
        a, b = settings["dim0"] % dims, settings["dim1"] % dims
        order[a], order[b] = b, a
    return nodes.add("Transpose", given[0], perm=[dim % dims for dim in order])


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * count if len(values) == 1 else values


#: Kind of an operator -> what adds its nodes, for ops that read one tensor and change each number by itself: a runtime
#: may fuse them with the layer before.
_ELEMENTWISE: dict[str, _Emit] = {
    **dict.fromkeys(("hardtanh", "relu6", "clamp"), _clip),
    "silu": _silu,
    "relu": _unary("Relu"),
    "sigmoid": _unary("Sigmoid"),
    "tanh": _unary("Tanh"),
    "hardsigmoid": _unary("HardSigmoid"),
    "hardswish": _unary("HardSwish"),
    "leaky_relu": _unary("LeakyRelu", alpha=0.1),
    "elu": _unary("Elu"),
    "gelu": _unary("Gelu"),
    "mish": _unary("Mish"),
    "softplus": _unary("Softplus"),
    "exp": _unary("Exp"),
    "sqrt": _unary("Sqrt"),
    "abs": _unary("Abs"),
    "neg": _unary("Neg"),
}
#: The same for ops that read two tensors of the same shape, or of shapes that are stretched to the same.
_BINARY: dict[str, _Emit] = {
    "add": _binary("Add"),
    "sub": _binary("Sub"),
    "mul": _binary("Mul"),
    "div": _binary("Div"),
}
#: Kind of an operator -> what adds its nodes; all kinds.
_KINDS: dict[str, _Emit] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "convolution", "_convolution"), _conv),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv),
    "linear": _linear,
    **dict.fromkeys(("matmul", "bmm", "mm"), lambda nodes, operator, given: nodes.add("MatMul", *given)),
    **dict.fromkeys(("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"), _pool),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "mean"), _mean),
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "scaled_dot_product_attention": _attention,
    "pixel_shuffle": _pixel_shuffle,
    "slice": _slice,
    "pad": _pad,
    "prelu": _prelu,
    **dict.fromkeys(("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"), _resize),
    "cat": lambda nodes, operator, given: nodes.add("Concat", *given, axis=dict(operator.settings).get("dim", 0)),
    "softmax": lambda nodes, operator, given: nodes.add("Softmax", *given, axis=dict(operator.settings)["dim"]),
    **dict.fromkeys(("permute", "transpose"), _transpose),
    **_BINARY,
    **_ELEMENTWISE,
}
ELEMENTWISE, BINARY = tuple(_ELEMENTWISE), tuple(_BINARY)
