"""Small ONNX networks with random weights: one of each way in which channels go from layer to layer."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class _Graph:
    """A graph that is written node by node."""

    def __init__(self, draw: random.Random) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._rng = np.random.default_rng(draw.randrange(1 << 30))

    def tensor(self, *shape: int) -> str:
        value = self._rng.standard_normal(shape) / max(1, np.prod(shape[1:])) ** 0.5
        return self.constant(value.astype(np.float32))

    def constant(self, value: NDArray[np.generic]) -> str:
        self.weights.append(numpy_helper.from_array(value, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def node(self, op: str, inputs: Sequence[str], count: int = 1, **attributes: object) -> str:
        """Add a node; returns its first output, and the others have the names "<first>.1" and so on."""
        name = f"v{len(self.nodes)}"
        outputs = [name, *(f"{name}.{i}" for i in range(1, count))]
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"n{len(self.nodes)}", **attributes))
        return name

    def conv(self, x: str, before: int, after: int, kernel: int = 3, groups: int = 1) -> str:
        pad = kernel // 2
        inputs = [x, self.tensor(after, before // groups, kernel, kernel), self.tensor(after)]
        return self.node("Conv", inputs, kernel_shape=[kernel] * 2, pads=[pad] * 4, group=groups)

    def norm(self, x: str, width: int) -> str:
        variance = self.constant(self._rng.uniform(0.5, 2, width).astype(np.float32))
        statistics = [self.tensor(width), self.tensor(width), self.tensor(width), variance]
        return self.node("BatchNormalization", [x, *statistics])

    def head(self, x: str, width: int) -> str:
        pooled = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        return self.node("Gemm", [pooled, self.tensor(5, width), self.tensor(5)], transB=1)


def _plain(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.norm(g.conv("x", 3, width), width)])
    x = g.node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    return g.head(g.node("Relu", [g.conv(x, width, 2 * width)]), 2 * width)


def _residual(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv("x", 3, width)])
    y = g.node("Relu", [g.norm(g.conv(x, width, width), width)])
    return g.head(g.node("Relu", [g.node("Add", [x, g.conv(y, width, width)])]), width)


def _depthwise(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv("x", 3, width)])
    x = g.node("Relu", [g.conv(x, width, width, groups=width)])
    x = g.node("ReduceMean", [g.conv(x, width, 2 * width, 1)], axes=[2, 3], keepdims=0)
    return g.node("Add", [g.node("MatMul", [x, g.tensor(2 * width, 5)]), g.tensor(5)])


def _branches(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv("x", 3, width)])
    both = g.node("Concat", [g.conv(x, width, width), g.conv(x, width, width, 1)], axis=1)
    a = g.node("Split", [g.node("Relu", [both]), g.constant(np.array([width, width]))], 2, axis=1)
    return g.head(g.node("Mul", [a, g.node("Sigmoid", [f"{a}.1"])]), width)


def _picture(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv("x", 3, width)])
    weight = [g.tensor(width, 2 * width, 2, 2), g.tensor(2 * width)]
    x = g.node("ConvTranspose", [x, *weight], kernel_shape=[2, 2], strides=[2, 2])
    x = g.node("AveragePool", [g.node("LeakyRelu", [x])], kernel_shape=[2, 2], strides=[2, 2])
    return g.conv(x, 2 * width, 3)


def _excited(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv("x", 3, width)])
    s = g.conv(g.node("GlobalAveragePool", [x]), width, width // 2, 1)
    s = g.node("Sigmoid", [g.conv(g.node("Relu", [s]), width // 2, width, 1)])
    return g.head(g.conv(g.node("Mul", [x, s]), width, width), width)


def _shuffled(g: _Graph, width: int) -> str:
    x = g.node("Relu", [g.conv(g.node("Relu", [g.conv("x", 3, width)]), width, width, groups=2)])
    parts = g.node("Reshape", [x, g.constant(np.array([0, 2, width // 2, 12, 12]))])
    mixed = g.node("Transpose", [parts], perm=[0, 2, 1, 3, 4])
    x = g.node("Reshape", [mixed, g.constant(np.array([0, width, 12, 12]))])
    return g.head(g.conv(x, width, width, groups=2), width)


NETWORKS = (_plain, _residual, _depthwise, _branches, _picture, _excited, _shuffled)


def network(draw: random.Random) -> onnx.ModelProto:
    """Return one of the networks, for inputs of 3×12×12."""
    g = _Graph(draw)
    output = draw.choice(NETWORKS)(g, draw.choice((4, 6, 8)))
    batch = draw.choice(("n", 2))
    graph = helper.make_graph(
        g.nodes, "net", [helper.make_tensor_value_info("x", 1, [batch, 3, 12, 12])],
        [helper.make_tensor_value_info(output, 1, None)], g.weights,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
