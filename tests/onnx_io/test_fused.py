"""Files that onnxruntime has optimised, and sizes that a file computes from other tensors."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pfpcli
from onnx_files import write

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


class TwoScales(nn.Module):
    """The small map is resized to the size of the large one, which the exporter computes in the file."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 4, 1)
        self.inner, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(16, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        large = F.relu(self.large(x))
        small = F.relu(self.inner(F.relu(self.small(large))))
        small = F.interpolate(small, size=large.shape[2:], mode="bilinear", align_corners=False)
        return self.last(torch.cat([large, small], 1)).mean((2, 3))


def test_a_size_computed_from_a_cut_tensor_follows_in_the_users_own_graph(tmp_path: Path) -> None:
    file = write(TwoScales().eval(), torch.randn(2, 3, 32, 32), tmp_path / "model.onnx", ("n", "", "h", "w"), opset=13)
    run = pfpcli.compress(file, SAMPLES, input_size=(3, 32, 32), out=tmp_path / "run", **QUICK)
    assert not [each for each in run.record.warnings if "no longer the graph that came in" in each]


class Tied(nn.Module):
    """One weight in a convolution and in the transposed convolution that undoes it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 8, 3, 3) / 8)
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(F.relu(self.first(x)), self.weight))
        return self.last(F.relu(F.conv_transpose2d(x, self.weight))).mean((2, 3))


def test_a_weight_used_in_two_forms_is_cut_and_not_refitted(tmp_path: Path) -> None:
    run = pfpcli.compress(Tied().eval(), SAMPLES, input_size=(3, 32, 32), out=tmp_path / "run", **QUICK)
    assert run.record.after.params < run.record.before.params
