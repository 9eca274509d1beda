"""Files that onnxruntime has optimised."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pfpcli
from onnx_files import NODE, write
from pfpcli.onnx_io.network import network_of
from pfpcli.onnx_io.ops import RULES
from pfpcli.onnx_io.runtime import run_onnx, session

SAMPLES = Path(__file__).parents[2] / "samples" / "images"
QUICK = {"keep": 0.5, "criterion": "l1", "allocate": "uniform"}


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(F.leaky_relu(self.a(x), 0.1)))


def test_a_file_that_onnxruntime_has_optimised_is_cut(tmp_path: Path) -> None:
    layers = (nn.Conv2d(3, 8, 3, 2), nn.ReLU6(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    plain = write(nn.Sequential(*layers).eval(), torch.randn(2, 3, 32, 32), tmp_path / "plain.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "model.onnx")
    onnxruntime.InferenceSession(str(plain), options, providers=["CPUExecutionProvider"])
    assert b"FusedConv" in (tmp_path / "model.onnx").read_bytes()
    run = pfpcli.compress(tmp_path / "model.onnx", SAMPLES, out=tmp_path / "run", **QUICK)
    assert run.record.after.params < 0.6 * run.record.before.params
    (written,) = (tmp_path / "run").glob("*.onnx")  # the verdict on random weights is part of its name
    assert b"FusedConv" in written.read_bytes()


#: A name -> the op, the shapes of its constants, and its attributes.
FUSED = {
    **{
        name: (
            "FusedConv",
            [(4, 3, 3, 3), (4,)],
            {"activation": name, **({"activation_params": given} if given else {})},
        )
        for name, given in {"Relu": [], "LeakyRelu": [0.3], "Clip": [0.1, 0.4], "HardSigmoid": [0.3, 0.4]}.items()
    },
    "sum": ("FusedConv", [(4, 3, 1, 1), (4,), (2, 4, 5, 6)], {"activation": "Relu"}),
    "FusedGemm": ("FusedGemm", [(6, 4), (4,)], {"activation": "LeakyRelu", "activation_alpha": 0.3}),
    "FusedMatMul": ("FusedMatMul", [(4, 6)], {"transB": 1, "alpha": 0.5}),
    "Gelu": ("Gelu", [], {}),
    "BiasGelu": ("BiasGelu", [(6,)], {}),
    "FastGelu": ("FastGelu", [(6,)], {}),
    "QuickGelu": ("QuickGelu", [], {"alpha": 1.5}),
}


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_op_computes_what_onnxruntime_computes(name: str) -> None:
    op, shapes, attributes = FUSED[name]
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.standard_normal((2, 6) if op == "FusedGemm" else (2, 3, 5, 6)).astype(np.float32))
    constants = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    held = [onnx.numpy_helper.from_array(each, f"c{i}") for i, each in enumerate(constants)]
    node = NODE(op, ["x", *(each.name for each in held)], ["y"], domain="com.microsoft", **attributes)
    ends = [onnx.helper.make_tensor_value_info("x", 1, x.shape)], [onnx.helper.make_tensor_value_info("y", 1, None)]
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    graph = onnx.helper.make_graph([node], "one", *ends, held)
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (expected,) = run_onnx(session(model), [x])
    with torch.no_grad():
        torch.testing.assert_close(network_of(model)(x), torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


def test_every_fused_op_is_compared() -> None:
    assert {f"com.microsoft.{op}" for op, *_ in FUSED.values()} == {op for op in RULES if "." in op}
