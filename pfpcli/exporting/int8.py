"""int8: an ONNX network with 8-bit weights and activations (static QDQ), by onnxruntime's quantiser.

Weights are signed, symmetric and have a scale per channel. Activations are unsigned: on x86, onnxruntime is much faster
with them than with signed ones. Ranges are measured once; each candidate of the search only writes a graph.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx
from onnx import version_converter
from onnxruntime.quantization import QDQQuantizer, QuantType, quant_pre_process
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.registry import QDQRegistry

from pfpcli.exporting.silence import silent
from pfpcli.onnx_io.file import graph_inputs, opset_of, values_read

#: The first opset whose DequantizeLinear has a scale per channel.
OPSET = 13
#: The opset in which Resize got its modes.
_RESIZE = 11
#: Ops that hold weights: each begins a group of nodes.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
#: What onnxruntime's optimiser writes in front of the name of weights into which it folds a batch norm.
_FOLDED = "ConvBnFusion_W_"


#: The number that `prepared` writes in front of the name of a node.
_NUMBER = re.compile(r"^\d+:")


class CannotConvert(Exception):
    """A network cannot be written in another precision. The message gives the reason."""


def prepared(model: onnx.ModelProto, outputs: Sequence[str], scratch: Path) -> onnx.ModelProto:
    """Return a model that can be quantised: of opset 13 or newer, batch norms folded, all nodes named.

    Args:
        model: the model; it stays unchanged.
        outputs: values that have to keep their names; those that are no outputs become outputs (`released`).
        scratch: a folder for temporary files.

    Raises:
        CannotConvert: the opset is too old, and onnx cannot convert the model.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    wanted = graph_inputs(found)
    del found.graph.input[:]
    found.graph.input.extend(wanted)
    there = {each.name for each in found.graph.output}
    found.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in there)
    with silent():
        found = _typed(_in_opset(found))
        source, target = scratch / "unprepared.onnx", scratch / "prepared.onnx"
        onnx.save(found, source)
        # onnxruntime does not load plugins of other programs; such a graph is quantised as it is
        quant_pre_process(source, target, skip_symbolic_shape=True)
        found = onnx.load(target)
    for index, node in enumerate(found.graph.node):
        node.name = f"{index}:{node.name}"  # the tools tell nodes by their names
    return found


def _in_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    version = opset_of(model)
    if version >= OPSET:
        return model
    try:
        found = version_converter.convert_version(model, OPSET)
    except Exception as error:
        said = str(error).strip().rpartition(": ")[2].partition("\n")[0]
        raise CannotConvert(f"it is of opset {version}, and onnx cannot convert it to {OPSET} ({said})") from error
    for node in found.graph.node:
        if version < _RESIZE and node.op_type == "Resize":
            # the converter leaves these out, though their defaults have changed with opset 11
            modes = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            set_already = {each.name for each in node.attribute}
            node.attribute.extend(
                onnx.helper.make_attribute(name, mode) for name, mode in modes.items() if name not in set_already
            )
    return found


def _typed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give outputs that were added their types."""
    inferred = {each.name: each for each in onnx.shape_inference.infer_shapes(model).graph.value_info}
    for each in model.graph.output:
        if not each.HasField("type") and each.name in inferred:
            each.CopyFrom(inferred[each.name])
    return model


def layer_groups(model: onnx.ModelProto, outputs: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the nodes that the outputs depend on, in groups that begin with a layer.

    Args:
        model: as `prepared` returns it.
        outputs: values of the model.

    Returns:
        Names of nodes, in the order in which they run.
    """
    groups: list[list[str]] = []
    for node in _needed(model.graph, outputs):
        if node.op_type in LAYERS or not groups:
            groups.append([])
        groups[-1].append(node.name)
    return [tuple(group) for group in groups]


def _needed(graph: onnx.GraphProto, outputs: Sequence[str]) -> list[onnx.NodeProto]:
    wanted, found = set(outputs), []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(values_read(node))
            found.append(node)
    return found[::-1]


def quantised(model: onnx.ModelProto, ranges: TensorsData, nodes: Iterable[str]) -> onnx.ModelProto:
    """Return a model with 8-bit nodes.

    Args:
        model: as `prepared` returns it; it stays unchanged.
        ranges: of its tensors.
        nodes: the nodes that become 8-bit; at least one.
    """
    with silent():
        quantiser = QDQQuantizer(
            copy.deepcopy(model),
            per_channel=True,
            reduce_range=False,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=list(nodes),
            nodes_to_exclude=[],
            op_types_to_quantize=list(QDQRegistry),
            extra_options={},
        )
        quantiser.quantize_model()
        quantiser.model.topological_sort()
    found: onnx.ModelProto = quantiser.model.model
    return found


def released(model: onnx.ModelProto, original: onnx.ModelProto) -> onnx.ModelProto:
    """Return a prepared or quantised model with the outputs of its original, without traces of the tools; changed."""
    for node in model.graph.node:
        node.name = _NUMBER.sub("", node.name)
    there = {each.name for each in original.graph.output}
    kept = [each for each in model.graph.output if each.name in there]
    del model.graph.output[:], model.metadata_props[:]
    model.graph.output.extend(kept)
    used = {node.domain for node in model.graph.node} | {""}
    imports = [each for each in model.opset_import if each.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    model.producer_name, model.producer_version = original.producer_name, original.producer_version
    return model


def layer_names(model: onnx.ModelProto, nodes: Iterable[str]) -> list[str]:
    """Return the names of the layers among some nodes, as the network that was exported calls them.

    A layer has the name of its weights without ".weight", or of its node where the weights have no dotted name.
    """
    wanted = set(nodes)
    layers = [node for node in model.graph.node if node.name in wanted and node.op_type in LAYERS]
    return [_layer_name(node) for node in layers]


def _layer_name(node: onnx.NodeProto) -> str:
    weights = node.input[1].removeprefix(_FOLDED)
    own = _NUMBER.sub("", node.name)
    return weights.removesuffix(".weight") if weights.endswith(".weight") else own or node.output[0]
