"""ONNX files for tests: networks of the zoo, files of single nodes, and what a cut makes of them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from pfpcli.channels.groups import Groups
from pfpcli.graph.graph import Graph
from pfpcli.jobs.steps.open import trace_groups
from pfpcli.models.load import load
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io import write as onnx_write
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings
from zoo import ZOO

SAMPLES = Path(__file__).parents[1] / "samples"
NODE = helper.make_node


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
    """The groups of a file; one with free heights and widths is traced at 64 × 64."""
    source = source or load(path)
    return trace_groups(source, source.input_size or (3, 64, 64), NetworkSettings(model=path), Console())


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


def written(source: LoadedModel, groups: Groups, smaller: Graph, folder: Path) -> Path:
    """The file of a cut network with other weights; onnxruntime computes with it what torch computes."""
    with torch.no_grad():
        for tensor in smaller.module.parameters():
            tensor.mul_(1.01)
    assert isinstance(source.module, OnnxNetwork)
    onnx_write.save(source.module, groups.labelled.graph, smaller, folder / "smaller.onnx", smaller.example)
    return folder / "smaller.onnx"


def assert_same_graph(path: Path, written: Path) -> None:
    """The same interface, and no node that was not there, by its output; those that are left are in the same order."""
    before, after = onnx.load(path), onnx.load(written)
    assert [each.SerializeToString() for each in before.opset_import] == [
        each.SerializeToString() for each in after.opset_import
    ]
    for there, left in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        names = [each.name for each in left]
        assert [each.SerializeToString() for each in there if each.name in names][:1] == [
            each.SerializeToString() for each in left
        ][:1]
    outputs = [node.output[0] for node in before.graph.node]
    places = [outputs.index(node.output[0]) for node in after.graph.node]
    assert places == sorted(places)


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


def class_index(output: str) -> list[onnx.NodeProto]:
    return [NODE("ArgMax", [output], ["end"], axis=1, keepdims=0)]


def selecting(output: str) -> list[onnx.NodeProto]:
    return [NODE("NonZero", [output], ["places"]), NODE("Transpose", ["places"], ["end"], perm=[1, 0])]
