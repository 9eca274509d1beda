"""Export: a network as .pt2 and ONNX files, each run again before it counts as written.

torch's exporters write paths and stack traces of this machine into the metadata of nodes. The files contain none of
them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor
from torch.export import ExportedProgram

from pfpcli.errors import CheckFailed
from pfpcli.exporting.converted import converted
from pfpcli.exporting.program import program_of
from pfpcli.exporting.repeats import without_repeats
from pfpcli.graph.graph import Graph, Names
from pfpcli.graph.quiet import quiet
from pfpcli.graph.trace import open_dims
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch, onnx_vs_torch_in_sizes


def names(graph: Graph) -> Names:
    """Return the names of the inputs and outputs of a graph.

    Inputs have the names of the arguments of the forward. Outputs have the keys of the dict that the forward returns,
    else the names of their nodes.
    """
    outputs = [node.name for node in graph.outputs]
    info = getattr(graph.module.graph._codegen, "pytree_info", None)
    keys = info.out_spec.context if info is not None and info.out_spec.type is dict else None
    if keys is not None and len(keys) == len(outputs):
        outputs = [str(key) for key in keys]
    return Names(tuple(str(node.target) for node in graph.inputs), tuple(outputs))


def save_pt2(exported: ExportedProgram, path: Path) -> None:
    """Write a program as a .pt2 file for `torch.export.load`."""
    buffer = io.BytesIO()
    with quiet():
        torch.export.save(exported, buffer)
    path.write_bytes(buffer.getvalue())


def save_onnx(exported: ExportedProgram, graph: Graph, named: Names, path: Path, samples: Sequence[Tensor]) -> float:
    """Write an ONNX file and compare it with torch; try the next exporter if one fails.

    Args:
        exported: the program to write.
        graph: the same network in torch.
        named: names of its inputs and outputs.
        path: the file to write.
        samples: float[N, ...] for each input, to compare on. If the batch size is free, N differs from the batch size
            of the export.

    Returns:
        The largest difference from torch, relative to the largest absolute number of an output.

    Raises:
        CheckFailed: no exporter writes a file that agrees with torch; no file is left.
    """
    reasons = []
    for exporter, source in _exporters(exported, graph):
        try:
            with quiet():
                model = exporter(source, graph, named)
            _clean(model, open_dims(source))
            onnx.checker.check_model(model)
            path.write_bytes(model.SerializeToString())
            free = {dim.dim_param for dim in _dims(model.graph.input)}
            del model  # onnxruntime takes as much memory again
            difference = onnx_vs_torch(path, graph, samples)
            if {"height", "width"} <= free:
                difference = max(difference, onnx_vs_torch_in_sizes(path, graph, samples))
        except OSError:  # of the disk, not of an exporter
            raise
        except Exception as error:
            # without the colour codes of the exporters
            message = re.sub(r"\x1b\[\d+m", "", str(error)).strip()
            reasons.append(f"{type(error).__name__}: {message.partition(chr(10))[0]}")
        else:
            if difference <= ONNX_TOLERANCE:
                return difference
            reasons.append(f"outputs differ by {difference:.1e} (at most {ONNX_TOLERANCE:.0e} expected)")
        path.unlink(missing_ok=True)
    raise CheckFailed(
        f"model.onnx: torch's exporters give no file that agrees with torch: {'; '.join(reasons)}",
        "a newer onnxscript may help: pip install --upgrade onnxscript",
    )


_Exporter = Callable[[ExportedProgram, Graph, Names], onnx.ModelProto]


def _exporters(exported: ExportedProgram, graph: Graph) -> Iterator[tuple[_Exporter, ExportedProgram]]:
    """Yield exporters and programs, the best first: free sizes before fixed ones, and the quickest of those."""
    yield _export_converted, exported
    yield _export_program, exported
    if graph.spatial:  # e.g. adaptive pooling to more than one element has no ONNX form for free sizes
        exported = program_of(replace(graph, spatial=False))
        yield _export_program, exported
    yield _export_unoptimised, exported
    yield _export_traced, exported


def open_sizes(path: Path) -> tuple[str, ...]:
    """Return the names of the free sizes of an ONNX file's inputs, e.g. ("batch", "height", "width")."""
    model = onnx.load(path)
    return tuple(dict.fromkeys(dim.dim_param for dim in _dims(model.graph.input) if dim.dim_param))


def _export_converted(exported: ExportedProgram, graph: Graph, named: Names) -> onnx.ModelProto:
    """Export without decompositions, which fails on calls that have no ONNX function."""
    return _export_dynamo(converted(exported), named, optimize=True)


def _export_program(exported: ExportedProgram, graph: Graph, named: Names) -> onnx.ModelProto:
    return _export_dynamo(exported, named, optimize=True)


def _export_unoptimised(exported: ExportedProgram, graph: Graph, named: Names) -> onnx.ModelProto:
    """Export without folding constants, which fails on some ops; onnxruntime folds them when it loads the file."""
    return _export_dynamo(exported, named, optimize=False)


def _export_dynamo(exported: ExportedProgram, named: Names, *, optimize: bool) -> onnx.ModelProto:
    with without_repeats():
        made = torch.onnx.export(exported, dynamo=True, verbose=False, optimize=optimize)
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    _rename(model.graph, named)
    return model


def _rename(graph: onnx.GraphProto, named: Names) -> None:
    """Rename inputs and outputs; an inner value that has one of the new names becomes "<name>.inside"."""
    ends = [*graph.input, *graph.output]
    wanted = dict(zip([end.name for end in ends], [*named.inputs, *named.outputs], strict=True))
    taken = set(wanted.values())

    def renamed(name: str) -> str:
        return wanted.get(name) or (f"{name}.inside" if name in taken else name)

    for part in _graphs(graph):
        for value in (*part.input, *part.output, *part.value_info, *part.initializer):
            value.name = renamed(value.name)
        for node in part.node:
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]


def _export_traced(exported: ExportedProgram, graph: Graph, named: Names) -> onnx.ModelProto:
    """Export with torch's older exporter, which traces the network and has its own conversion of many ops."""
    axes: dict[str, dict[int, str]] = {name: {0: "batch"} for name in named.outputs} if graph.dynamic else {}
    for name, dims in zip(named.inputs, open_dims(exported), strict=True):
        axes[name] = {dim: _DIMS.get(dim, f"size_{dim}") for dim in dims}
    return _traced(graph, named, axes)


def quickly(graph: Graph, named: Names, samples: Sequence[Tensor]) -> onnx.ModelProto:
    """Return an ONNX network that is only to be timed: by torch's older exporter, which is several times as fast.

    Args:
        graph: the network.
        named: names of its inputs and outputs.
        samples: float[N, ...] for each input; the network takes inputs of these sizes alone.

    Raises:
        CheckFailed: what the exporter makes does not agree with torch.
        Exception: whatever the exporter raises about an op that it does not know.
    """
    with quiet():
        made = _traced(replace(graph, example=tuple(samples)), named, {})
    difference = onnx_vs_torch(made, graph, samples)
    if difference > ONNX_TOLERANCE:
        raise CheckFailed(f"the network that is timed differs from torch by {difference:.1e}")
    return made


def _traced(graph: Graph, named: Names, axes: dict[str, dict[int, str]]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    torch.onnx.export(
        graph.module,
        graph.example,
        buffer,  # type: ignore[arg-type]  # the exporter takes a buffer, its annotation does not
        dynamo=False,
        input_names=list(named.inputs),
        output_names=list(named.outputs),
        dynamic_axes=axes or None,
    )
    return onnx.load_from_string(buffer.getvalue())


#: Index of a free dimension of an input -> its name.
_DIMS = {0: "batch", 2: "height", 3: "width"}


def _clean(model: onnx.ModelProto, free: list[list[int]]) -> None:
    """Remove metadata and name the free dimensions.

    Args:
        model: the model; it is changed.
        free: indices of the free dimensions, for each input.
    """
    symbols: dict[str, str] = {}
    for value, dims in zip(model.graph.input, free, strict=True):
        sizes = list(_dims([value]))
        for dim in dims:
            symbols.setdefault(sizes[dim].dim_param, _DIMS.get(dim, f"size_{dim}"))
    model.producer_name, model.producer_version, model.doc_string = "pfp", "", ""
    del model.metadata_props[:]
    for graph in _graphs(model.graph):
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            part.doc_string = ""
            if hasattr(part, "metadata_props"):
                del part.metadata_props[:]
        for dim in _dims([*graph.input, *graph.output, *graph.value_info]):
            if dim.dim_param:  # "((s0 - 1)//2) + 1" has a symbol in it
                dim.dim_param = re.sub(r"\w+", lambda part: symbols.get(part[0], part[0]), dim.dim_param)


def _dims(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        yield from value.type.tensor_type.shape.dim


def _graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
