"""Cuts: a network of an ONNX file is cut at random, and the cut file is checked against the file alone.

The check knows nothing of labels and rules: in the original file, the weights that read dropped channels are set to
zero. onnxruntime has to compute the same from that file and from the cut one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from valid_onnx import image, run

from pfpcli.channels.cost import Predictor
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.verify import cut_vs_masked
from pfpcli.jobs.steps.export import OnnxWriter
from pfpcli.jobs.steps.open import input_size, load_model, trace_groups
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.planning.plan import Budget, everything
from pfpcli.planning.refusals import nothing_to_prune
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings
from properties import random_drop

#: Largest difference between the two files, relative to the largest output.
TOLERANCE = 1e-3
#: Op of a layer -> the dimension of its weight along which it reads channels.
_READ = {"Conv": 1, "ConvTranspose": 0, "MatMul": 0}


def attacked(file: Path, seed: int) -> str:
    """Cut the network of a file at random.

    Returns:
        "cut": the cut file computes what the original without the dropped channels does. "unchecked": pfp checked the
        cut, and nothing else can, because a weight is not stored as it is read, or numbers are infinite.

    Raises:
        PfpError: pfp refuses the file.
        AssertionError: the two files differ.
    """
    settings, console = NetworkSettings(model=file), Console()
    model = load_model(settings, console)
    groups = trace_groups(model, input_size(model, (3, 12, 12)), settings, console)
    if not groups.prunable:
        raise nothing_to_prune(groups)
    alive = groups.alive(random_drop(groups, seed))
    made = cut(groups.labelled, alive)
    difference = cut_vs_masked(made, torch.from_numpy(image(onnx.load(file))))
    assert difference <= 1e-9, f"cut and masked differ by {difference:.0e}"
    graph, smaller = groups.labelled.graph, file.with_name("smaller.onnx")
    OnnxWriter(model, graph, lambda n: torch.randn(n, 3, 12, 12), file.parent).write(made.graph, smaller)
    whole = everything(groups, Predictor(groups), Budget())
    plan = PlanFile.of_plan(whole, Slicing(groups.labelled, alive), readers(groups))
    assert isinstance(model.module, OnnxNetwork)
    masked = _masked(onnx.load(file), plan, model.module.paths)
    if masked is None:
        return "unchecked"
    x = image(masked)
    for expected, found in zip(run(masked, x), run(onnx.load(smaller), x), strict=True):
        assert expected.shape == found.shape, f"shapes {expected.shape} and {found.shape}"
        if not np.isfinite(expected).all():
            return "unchecked"  # a zero weight times an infinite number is no zero
        largest = np.abs(expected).max(initial=0)
        error = np.abs(expected - found).max(initial=0)
        assert error <= TOLERANCE * largest, f"differ by {error / largest:.0e}"
    return "cut"


def _masked(model: onnx.ModelProto, plan: PlanFile, paths: dict[str, str]) -> onnx.ModelProto | None:
    """Return a file with zeros in the weights that read dropped channels; None where such a weight is computed."""
    stored = {each.name: each for each in model.graph.initializer}
    stored |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    left = dict(plan.tensors)
    for node in model.graph.node:
        tensor = stored.get(node.input[1]) if len(node.input) > 1 else None
        if tensor is None or paths.get(tensor.name) not in plan.tensors:
            continue
        path = paths[tensor.name]
        is_turned = any(each.name == "transB" and each.i for each in node.attribute)
        dim = int(is_turned) if node.op_type == "Gemm" else _READ.get(node.op_type)
        left.pop(path, None)
        if dim is None and all(name in stored for name in node.input):
            return None  # the node computes a weight
        kept = None if dim is None else plan.tensors[path].get(str(dim))
        if dim is None or kept is None:
            continue
        value = numpy_helper.to_array(tensor).copy()
        parts = kept if isinstance(kept[0], list) else [kept]
        rows = np.array_split(np.arange(value.shape[1 - dim]), len(parts))
        for part, indices in zip(rows, parts, strict=True):
            dropped = np.setdiff1d(np.arange(value.shape[dim]), indices)
            value[np.ix_(part, dropped) if dim else np.ix_(dropped, part)] = 0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    is_read = any(len(plan.shapes[path]) > 1 for path in left)
    return None if is_read else model
