"""Recorded: networks, plans and machines as plain values for the record of a run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.fx.node import Node

from pfpcli._version import __version__
from pfpcli.channels.cost import Costs, node_macs
from pfpcli.channels.groups import Groups
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.graph import Graph, is_constant, is_tensor, owner
from pfpcli.images.calibration import Division
from pfpcli.jobs.steps.export import ExportedFiles
from pfpcli.jobs.steps.network import Prepared
from pfpcli.jobs.steps.open import unknown_ops
from pfpcli.jobs.steps.plan import Planned
from pfpcli.jobs.steps.score import Scored
from pfpcli.latency.files import Latency, SpeedUp
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.outputs.kinds.kind import FARTHEST
from pfpcli.planning.plan import Plan
from pfpcli.progress import Console
from pfpcli.records.parts import Cost, GroupRow, LayerRow, Quality, Verification
from pfpcli.scoring import kernel
from pfpcli.settings import CompressSettings, NetworkSettings


def model_row(model: LoadedModel, size: tuple[int, ...]) -> dict[str, Any]:
    """What came in, and the shape of one input."""
    return {"name": model.name, "kind": model.kind, "sha256": model.sha256, "input_size": list(size)}


def run_fields(
    settings: NetworkSettings,
    groups: Groups,
    division: Division,
    quality: Quality,
    verification: Verification,
    exported: ExportedFiles,
    device: torch.device,
    console: Console,
    verdict: tuple[str, str] = ("ok", ""),
) -> dict[str, Any]:
    """The fields that the records of all runs have, but for the model; verdict: as `judge.status` returns it."""
    graph, recorded = groups.labelled.graph, settings.recorded()
    return {
        "pfp_version": __version__,
        "status": verdict[0],
        "failure": verdict[1],
        "settings": recorded,
        "origins": {name: origin for name, origin in settings.origins.items() if name in recorded},
        "quality": quality,
        "verification": verification,
        "calibration": division.recorded(),
        "trace": {
            "ops": sum(node.op == "call_function" for node in graph.nodes),
            "unknown": unknown_ops(groups),
            "dynamic_batch": graph.dynamic,
            "dynamic_size": graph.spatial,
            "stops": list(graph.stops),
        },
        "artifacts": exported.files,
        "timings": console.timings,
        "memory": _memory(console),
        "warnings": console.warnings,
        "machine": machine(device),
    }


def _memory(console: Console) -> dict[str, Any]:
    """The memory of the steps, see `Record`."""
    later = [peak for name, peak in console.peaks.items() if name not in ("load", "images", "trace")]
    if not later or "trace" not in console.held:
        return {}
    return {"traced": console.held["trace"], "peak": max(later), "steps": console.peaks}


def machine(device: torch.device) -> dict[str, Any]:
    """Versions of the libraries, and what computes."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "kernel": kernel.about() if device.type == "cpu" else "torch",
    }


def requested_row(ready: Prepared) -> dict[str, Any]:
    """What was asked for; a size and a latency are those of the file."""
    settings, amount = ready.settings, ready.settings.amount
    asked = {"keep": ready.budget.keep if ready.target is None else ready.target[1], "of": ready.budget.of}
    text = None if amount is None else amount.text
    return {**asked, "precision": settings.timed_in, "epsilon": settings.epsilon, "amount": text}


def scoring_fields(settings: CompressSettings, scored: Scored, planned: Planned) -> dict[str, Any]:
    """How channels were scored, and the plans that were tried."""
    return {
        "criterion": scored.criterion,
        "allocate": settings.allocate,
        "plans": [{"name": each.name, "loss": float(f"{min(each.loss, FARTHEST):.4g}")} for each in planned.tried],
        "widths": planned.widths,
        "reduce": settings.reduce,
        "epsilon": planned.plan.epsilon,
        "delta": settings.delta,
        "samples": scored.scores.samples,
    }


def cost_row(costs: Costs, file_bytes: int, timed: Latency) -> Cost:
    """What a network costs, with the size of its file and its latency."""
    return Cost(costs.params, costs.macs, costs.bytes, file_bytes, round(timed.median_ms, 4), round(timed.iqr_ms, 4))


def speed_up_row(found: SpeedUp) -> dict[str, float]:
    """A speed-up and its confidence interval."""
    return {"times": round(found.times, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def group_rows(plan: Plan) -> list[GroupRow]:
    """Every group: how many channels it had and has, or why it is frozen."""
    return [
        GroupRow(g.name, g.size, kept * g.width, g.frozen, g.inexact, g.readers)
        for g, kept in zip(plan.groups.groups, plan.kept, strict=True)
    ]


def layer_rows(slicing: Slicing) -> list[LayerRow]:
    """Every layer with weights that multiplies, before and after, in the order they run."""
    graph = slicing.labelled.graph
    before, after = node_macs(graph, _whole), node_macs(graph, slicing.shape)
    params = _params_by_owner(graph, slicing)
    found: dict[str, LayerRow] = {}
    for node in before:
        weights = [a for a in node.all_input_nodes if is_constant(a)]
        x = next((a for a in node.all_input_nodes if not is_constant(a)), None)
        if not weights or x is None:
            continue
        name = owner(node)
        if name in found:  # a layer that is used again: its MACs add up, its parameters do not
            macs = found[name].macs
            found[name].macs = (macs[0] + before[node], macs[1] + after[node])
            continue
        dim = 1 if "conv" in str(node.target) else -1
        found[name] = LayerRow(
            name,
            str(node.target).split(".")[1],
            (_whole(x)[dim], slicing.shape(x)[dim]),
            (_whole(node)[dim], slicing.shape(node)[dim]),
            params.get(name, (0, 0)),
            (before[node], after[node]),
            (_conv_groups(node, x, weights[0], _whole), _conv_groups(node, x, weights[0], slicing.shape)),
        )
    return list(found.values())


def _conv_groups(node: Node, x: Node, weight: Node, shape: Callable[[Node], tuple[int, ...]]) -> int:
    """The number of groups of a convolution, by the shapes of its tensors; 1 for every other op."""
    op = str(node.target)
    if "conv" not in op:
        return 1
    # the weight is [C_out, C_in / groups, ...], transposed: [C_in, C_out / groups, ...]
    return shape(node if "transpose" in op else x)[1] // shape(weight)[1]


def _whole(node: Node) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _params_by_owner(graph: Graph, slicing: Slicing) -> dict[str, tuple[int, int]]:
    totals: dict[str, tuple[int, int]] = {}
    for node in _parameters(graph):
        before, after = totals.get(owner(node), (0, 0))
        totals[owner(node)] = (before + int(np.prod(_whole(node))), after + int(np.prod(slicing.shape(node))))
    return totals


def _parameters(graph: Graph) -> Iterator[Node]:
    seen: set[int] = set()
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            value = graph.tensor(node)
            if isinstance(value, nn.Parameter) and id(value) not in seen:
                seen.add(id(value))
                yield node
