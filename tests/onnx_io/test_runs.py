"""Whole runs on ONNX files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import pfpcli
from commands import sample_file, sample_images
from onnx_files import (
    NODE,
    assert_same_graph,
    class_index,
    followed_by,
    selecting,
    write,
)
from pfpcli.cli import main as cli
from pfpcli.jobs.inspect import inspect
from pfpcli.onnx_io import write as onnx_write
from pfpcli.onnx_io.rewrite import CannotRewrite
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample network as an ONNX file."""
    return sample_file(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of each of its classes, for runs whose quality does not matter."""
    return sample_images(tmp_path_factory.mktemp("samples") / "images", 8)


@pytest.fixture(scope="module")
def more_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many as the quality of a run needs to be told."""
    return sample_images(tmp_path_factory.mktemp("samples") / "images", 20)


def test_an_onnx_file_is_cut_and_recovered_and_written_with_its_names(
    sample: Path, more_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = pfpcli.compress(sample, more_images, keep=0.4, allocate="pfp", out=out, cache=False).record
    assert run.model["kind"] == "onnx"
    assert run.quality.after > 0.85
    assert [each.method for each in run.recovery] == ["lsq"]
    written = onnx.load(out / "model.onnx")
    original = onnx.load(sample)
    assert [each.name for each in written.graph.input] == ["image"]
    assert [each.name for each in written.graph.output] == [each.name for each in original.graph.output]
    assert (out / "model.onnx").stat().st_size < 0.5 * sample.stat().st_size


def test_fine_tuning_a_run_keeps_the_names(sample: Path, images: Path, tmp_path: Path) -> None:
    run, tuned = tmp_path / "run", tmp_path / "tuned"
    pfpcli.compress(sample, images, keep=0.5, allocate="uniform", recover=(), out=run, cache=False)
    pfpcli.finetune(run, data=images, epochs=1, out=tuned)
    written = [onnx.load(path / "model.onnx").graph for path in (run, tuned)]
    for ends in ([*graph.input, *graph.output] for graph in written):
        assert [each.name for each in ends] == ["image", onnx.load(sample).graph.output[0].name]


def test_a_file_that_ends_in_untouched_nodes_is_cut_and_the_run_says_so(
    sample: Path, images: Path, tmp_path: Path
) -> None:
    model = onnx.load(sample)
    model.graph.node.extend(selecting(model.graph.output[0].name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "net.onnx")
    run = pfpcli.compress(
        tmp_path / "net.onnx", images, keep=0.5, allocate="uniform", recover=(), out=tmp_path / "run",
        cache=False,
    ).record  # fmt: skip
    assert any(
        "up to NonZero" in each and "2 nodes, 0 parameters) are not cut or counted;" in each for each in run.warnings
    )
    assert run.quality.metric == "accuracy"  # one vector of scores is what goes in there
    assert [node.op_type for node in onnx.load(tmp_path / "run" / "model.onnx").graph.node][-2:] == [
        "NonZero", "Transpose",
    ]  # fmt: skip
    pfpcli.finetune(tmp_path / "run", data=images, epochs=1, out=tmp_path / "tuned")
    assert_same_graph(tmp_path / "run" / "model.onnx", tmp_path / "tuned" / "model.onnx")


def test_inspect_says_before_which_op_a_network_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = followed_by(selecting, tmp_path / "net.onnx")
    assert cli.run(["inspect", str(path)]) == 0
    assert "followed up to NonZero: these nodes and all later nodes stay" in " ".join(capsys.readouterr().out.split())


def test_a_graph_that_cannot_be_written_into_is_exported_and_the_run_says_what_is_lost(
    sample: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(sample)
    model.graph.node.extend(class_index(model.graph.output[0].name))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "net.onnx")

    def cannot(*_: object) -> onnx.ModelProto:
        raise CannotRewrite("Reshape 7")

    monkeypatch.setattr(onnx_write, "rewrite", cannot)
    run = pfpcli.compress(
        tmp_path / "net.onnx", images, keep=0.5, allocate="uniform", recover=(), out=tmp_path / "run",
    ).record  # fmt: skip
    (said,) = (each for each in run.warnings if "torch's export" in each)
    assert "which ends before the untouched nodes (Reshape 7)" in said


def test_single_weights_of_an_onnx_file_become_zeros_in_its_graph(
    sample: Path, more_images: Path, tmp_path: Path
) -> None:
    run = pfpcli.sparsify(sample, more_images, keep=0.6, out=tmp_path / "run").record
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


#: Settings of a run that is over soon.
QUICK = {"keep": 0.5, "criterion": "l1", "allocate": "uniform"}


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


def test_a_size_computed_from_a_cut_tensor_follows_in_the_users_own_graph(images: Path, tmp_path: Path) -> None:
    file = write(TwoScales().eval(), torch.randn(2, 3, 32, 32), tmp_path / "model.onnx", ("n", "", "h", "w"), opset=13)
    run = pfpcli.compress(file, images, input_size=(3, 32, 32), out=tmp_path / "run", **QUICK)
    assert not [each for each in run.record.warnings if "no longer the graph that came in" in each]


def test_an_average_over_a_window_with_gaps_is_cut_in_the_users_own_graph(images: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "v": (5, 8, 3, 3)}
    held = [
        numpy_helper.from_array((random.standard_normal(shape) / 5).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    window = {"kernel_shape": [3, 2], "dilations": [2, 3], "strides": [2, 1], "pads": [1, 0, 2, 1]}
    nodes = [
        NODE("Conv", ["x", "w"], ["a"]),
        NODE("AveragePool", ["a"], ["b"], **window),
        NODE("Conv", ["b", "v"], ["c"]),
        NODE("ReduceMean", ["c", "axes"], ["y"], keepdims=0),
    ]
    held.append(numpy_helper.from_array(np.array([2, 3]), "axes"))
    ends = [
        [helper.make_tensor_value_info("x", 1, ("n", 3, 32, 32))],
        [helper.make_tensor_value_info("y", 1, None)],
    ]
    graph = helper.make_graph(nodes, "net", *ends, held)
    opsets = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "model.onnx")
    run = pfpcli.compress(tmp_path / "model.onnx", images, out=tmp_path / "run", **QUICK)
    assert run.record.after.params < run.record.before.params
    assert not [each for each in run.record.warnings if "no longer the graph that came in" in each]
