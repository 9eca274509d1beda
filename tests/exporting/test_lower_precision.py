"""int8 and float16 graphs: what is converted, what stays in float32, and which names stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

import onnx_files
from onnx_files import NODE
from pfpcli.exporting.int8 import CannotConvert
from pfpcli.exporting.lower_precision import Source, converted, source_of
from pfpcli.exporting.ranges import FIRST, MOST, largest, measure_ranges
from pfpcli.onnx_io.network import read_onnx
from zoo import conv


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def source(file: Path, scratch: Path) -> Source:
    return source_of(file, read_onnx(file).as_read, [images(16)], scratch)


def run(model: onnx.ModelProto, x: torch.Tensor, output: str | None = None) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    name = session.get_inputs()[0].name
    return session.run(None if output is None else [output], {name: x.numpy()})[0]


def moved(model: onnx.ModelProto, file: Path) -> float:
    """Relative L2 distance of the outputs from those of the file, for a batch of a size not seen before."""
    x = images(5, seed=1)
    before, after = run(onnx.load(file), x), run(model, x)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with batch norms and a linear layer, of an opset without scales per channel."""
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 8), conv(8, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    return onnx_files.write(module, images(2), tmp_path_factory.mktemp("net") / "net.onnx", opset=11)


def test_int8_computes_almost_the_same_with_a_scale_for_each_channel(file: Path, tmp_path: Path) -> None:
    made = converted(source(file, tmp_path), "int8", frozenset())
    onnx.checker.check_model(made)
    assert moved(made, file) < 0.1
    ops = Counter(node.op_type for node in made.graph.node)
    assert ops["QuantizeLinear"] > 0
    assert ops["BatchNormalization"] == 0
    weights = {each.name: numpy_helper.to_array(each) for each in made.graph.initializer}
    convolutions = [weights[name] for name in weights if weights[name].ndim == 4]
    assert [each.dtype for each in convolutions] == [np.int8, np.int8]
    scales = [each for name, each in weights.items() if name.endswith("_scale") and each.shape == (8,)]
    assert len(scales) >= 2


def test_layers_that_stay_in_float_keep_their_weights(file: Path, tmp_path: Path) -> None:
    found = source(file, tmp_path)
    number, first = next((i, block) for i, block in enumerate(found.blocks) if found.layers(block))
    made = converted(found, "int8", found.nodes([number]))
    kinds = [numpy_helper.to_array(each).dtype for each in made.graph.initializer if len(each.dims) == 4]
    assert sorted(map(str, kinds)) == ["float32", "int8"]
    assert len(found.layers(first)) == 1
    assert moved(made, file) < moved(converted(found, "int8", frozenset()), file)


def test_fp16_keeps_inputs_and_outputs_in_float32(file: Path, tmp_path: Path) -> None:
    made = converted(source(file, tmp_path), "fp16", frozenset())
    onnx.checker.check_model(made)
    ends = [*made.graph.input, *made.graph.output]
    assert {each.type.tensor_type.elem_type for each in ends} == {TensorProto.FLOAT}
    assert {each.data_type for each in made.graph.initializer if len(each.dims) == 4} == {TensorProto.FLOAT16}
    assert moved(made, file) < 0.01


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_names_of_inputs_outputs_and_layers_stay(file: Path, tmp_path: Path, precision: str) -> None:
    found = source(file, tmp_path)
    made, before = converted(found, precision, frozenset()), onnx.load(file)
    assert [each.name for each in made.graph.input] == [each.name for each in before.graph.input]
    assert [each.name for each in made.graph.output] == [each.name for each in before.graph.output]
    assert made.metadata_props == before.metadata_props
    convolutions = {node.name for node in before.graph.node if node.op_type == "Conv"}
    assert convolutions <= {node.name for node in made.graph.node}


def test_nodes_whose_numbers_are_too_large_stay_in_float32(tmp_path: Path) -> None:
    large = numpy_helper.from_array(np.array([50_000.0], np.float32), "large")
    nodes = [
        NODE("Mul", ["x", "large"], ["far"]),
        NODE("Div", ["far", "large"], ["near"]),
        NODE("Relu", ["near"], ["y"]),
    ]
    file = onnx_files.save(nodes, tmp_path / "net.onnx", [large])
    found = source_of(file, lambda path: path, [images(16)], tmp_path)
    made = converted(found, "fp16", frozenset())
    assert len(found.overflowing) == 2
    assert {each.data_type for each in made.graph.initializer} == {TensorProto.FLOAT}
    assert moved(made, file) < 0.01


def plugin(output: str) -> list[onnx.NodeProto]:
    return [NODE("Pick", [output], ["end"], domain="com.example")]


@pytest.mark.parametrize("behind", [onnx_files.selecting, plugin])
@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_nodes_that_pfp_does_not_compute_stay_as_they_are(
    tmp_path: Path, precision: str, behind: Callable[[str], list[onnx.NodeProto]]
) -> None:
    file = onnx_files.followed_by(behind, tmp_path / "net.onnx")
    network = read_onnx(file)
    made = converted(source_of(file, network.as_read, [images(16)], tmp_path), precision, frozenset())
    last, before = made.graph.node[-1], onnx.load(file).graph.node[-1]
    assert (last.op_type, last.domain, last.output, last.attribute) == (
        before.op_type,
        before.domain,
        before.output,
        before.attribute,
    )
    assert [each.name for each in made.graph.output] == ["end"]
    onnx.save(made, tmp_path / "made.onnx")
    x, read = images(2), network.as_read(tmp_path / "made.onnx")
    assert isinstance(read, onnx.ModelProto)
    assert np.isfinite(run(read, x)).all()
    if behind is not plugin:
        assert run(made, x).dtype == np.int64


def test_resize_of_an_old_opset_keeps_its_meaning(tmp_path: Path) -> None:
    scales = numpy_helper.from_array(np.array([1, 1, 1.7, 1.7], np.float32), "scales")
    file = onnx_files.save(
        [NODE("Upsample", ["x", "scales"], ["y"], mode="linear")], tmp_path / "net.onnx", [scales], opsets={"": 9}
    )
    found = source_of(file, lambda path: path, [images(16)], tmp_path)
    x = images(2)
    np.testing.assert_allclose(run(found.model, x), run(onnx.load(file), x), rtol=1e-5, atol=1e-6)


def test_a_file_whose_opset_cannot_be_converted_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> onnx.ModelProto:
        raise RuntimeError("adapter_lookup: no adapter for Upsample")

    monkeypatch.setattr("pfpcli.exporting.int8.version_converter.convert_version", fail)
    file = onnx_files.save([NODE("Relu", ["x"], ["y"])], tmp_path / "net.onnx", opsets={"": 9})
    with pytest.raises(CannotConvert, match=r"opset 9, and onnx cannot convert it to 13 \(no adapter for Upsample\)"):
        source_of(file, lambda path: path, [images(16)], tmp_path)


def test_ranges_are_measured_on_as_many_images_as_are_enough(file: Path, tmp_path: Path) -> None:
    model = onnx.load(file)
    same = images(1).repeat(4, 1, 1, 1)
    ranges, count = measure_ranges(model, iter([same] * 100), tmp_path)
    assert count == 2 * FIRST
    name = model.graph.input[0].name
    assert largest(ranges, name) == float(same.abs().max())
    growing = (images(4) * (1 + number) for number in range(100))
    assert measure_ranges(model, growing, tmp_path)[1] == MOST


def test_the_tools_leave_no_file_beside_the_network(file: Path, tmp_path: Path) -> None:
    before = sorted(file.parent.iterdir())
    converted(source(file, tmp_path), "int8", frozenset())
    assert sorted(file.parent.iterdir()) == before
