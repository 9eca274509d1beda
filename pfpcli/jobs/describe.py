"""Describe: an outcome as plain values, for run.json and plan.json."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn
from torch.fx.node import Node

from pfpcli._version import __version__
from pfpcli.channels.cost import Costs, Predictor, count, node_macs
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.certificate import channel_factors
from pfpcli.exporting.latency import Latency
from pfpcli.graph.graph import Graph, fetch, is_constant, is_tensor, owner
from pfpcli.images.calibration import Division
from pfpcli.jobs.outcome import Outcome, Scored, SparseOutcome, TunedOutcome
from pfpcli.models.load import LoadedModel
from pfpcli.planning.plan import Plan
from pfpcli.progress import Console
from pfpcli.records.comparison import Comparison, Point
from pfpcli.records.inspection import GroupSeen, Inspection
from pfpcli.records.ranking import GroupRanked, LayerRanked, Ranking
from pfpcli.records.record import Cost, Filling, GroupRow, LayerRow, Quality, Run, SparseLayer, SparseRun, TunedRun
from pfpcli.scoring import kernel
from pfpcli.settings import Compare, Rank
from pfpcli.sparsity.weights import nonzeros

#: Version of plan.json. 1: the first one.
PLAN_VERSION = 1


def record(outcome: Outcome, console: Console) -> Run:
    """The record of a compression that went through."""
    settings, planned, scored = outcome.settings, outcome.planned, outcome.scored
    sizes, timed = outcome.written.file_bytes, outcome.timed
    return Run(
        **_common(outcome, scored.division, console),
        model=_model(outcome.source, scored.division),
        requested={"keep": settings.keep, "of": settings.keep_of, "epsilon": settings.epsilon},
        achieved={"keep": round(planned.achieved, 6), "exact": planned.is_met},
        before=_cost(planned.before, sizes[0], timed[0]),
        after=_cost(planned.after, sizes[1], timed[1]),
        certificate=outcome.certificate,
        recovery=outcome.recovered,
        scoring={
            "criterion": settings.criterion,
            "allocate": settings.allocate,
            "reduce": settings.reduce,
            "epsilon": planned.epsilon,
            "delta": settings.delta,
            "samples": scored.scores.samples,
        },
        latency={
            "threads": settings.threads or torch.get_num_threads(),
            "runs": timed[0].runs,
            "batch": outcome.batch,
        },
        layers=layers(outcome.made.slicing),
        groups=group_rows(planned),
    )


def sparse_record(outcome: SparseOutcome, console: Console) -> SparseRun:
    """The record of a removal of single weights that went through."""
    settings, weighed, written = outcome.settings, outcome.weighed, outcome.written
    graph, amount = outcome.groups.labelled.graph, weighed.amount
    filled = nonzeros(outcome.smaller)
    before, after = count(graph), count(outcome.smaller)
    sizes, deflated = written.file_bytes, outcome.deflated
    rows = []
    for each, one, error in zip(weighed.weights, outcome.chosen, outcome.errors, strict=True):
        left: Tensor = fetch(outcome.smaller.module, each.target)
        pair = (int((each.tensor != 0).sum()), int((left != 0).sum()))
        rows.append(SparseLayer(each.name, each.tensor.numel(), pair, one.bound, error))
    return SparseRun(
        **_common(outcome, weighed.division, console),
        model=_model(outcome.source, weighed.division),
        requested={"keep": settings.keep},
        achieved={"keep": round(filled / amount.total, 6)},
        before=Filling(before.params, amount.present, before.macs, sizes[0], deflated[0]),
        after=Filling(after.params, filled, after.macs, sizes[1], deflated[1]),
        scoring={"criterion": settings.criterion, "delta": settings.delta, "samples": weighed.seen.samples},
        dead={"channels": outcome.dead, "cut": 0 if outcome.planned is None else cut_channels(outcome.planned)},
        layers=rows,
    )


def tuned_record(outcome: TunedOutcome, console: Console) -> TunedRun:
    """The record of a fine-tuning that went through."""
    run = outcome.run
    return TunedRun(
        **_common(outcome, outcome.division, console),
        model=run.model,
        run=outcome.settings.run.name,
        before=run.before,
        after=replace(run.after, file_bytes=outcome.written.file_bytes[1]),
        scoring=run.scoring,
        training=outcome.training,
    )


def cut_channels(planned: Plan) -> int:
    """Channels a plan drops."""
    return sum(row.size - row.kept for row in group_rows(planned))


def _model(source: LoadedModel, division: Division) -> dict[str, Any]:
    size = list(division.calibration.size)
    return {"name": source.name, "kind": source.kind, "sha256": source.sha256, "input_size": size}


def _common(outcome: Outcome | SparseOutcome | TunedOutcome, division: Division, console: Console) -> dict[str, Any]:
    """What every record says but the model."""
    return {
        "pfp_version": __version__,
        "status": "ok",
        "settings": outcome.settings.recorded(),
        "quality": outcome.quality,
        "verification": outcome.verification,
        "calibration": division.recorded(),
        "trace": _trace(outcome.groups),
        "artifacts": outcome.written.files,
        "timings": console.timings,
        "warnings": console.warnings,
        "machine": _machine(outcome.device),
    }


def _cost(costs: Costs, file_bytes: int, timed: Latency) -> Cost:
    return Cost(costs.params, costs.macs, costs.bytes, file_bytes, round(timed.median_ms, 4), round(timed.iqr_ms, 4))


def _trace(groups: Groups) -> dict[str, Any]:
    graph = groups.labelled.graph
    ops = sum(node.op == "call_function" for node in graph.nodes)
    return {
        "ops": ops,
        "unknown": unknown_ops(groups),
        "dynamic_batch": graph.dynamic,
        "dynamic_size": graph.spatial,
        "stops": list(graph.stops),
    }


def unknown_ops(groups: Groups) -> dict[str, int]:
    """Op without a rule -> how often it is called."""
    return dict(Counter([*groups.labelled.graph.unread, *(str(node.target) for node in groups.labelled.unknown)]))


def inspection(source: LoadedModel, size: tuple[int, ...], groups: Groups) -> Inspection:
    """What there is to see in a network of some input size."""
    graph = groups.labelled.graph
    predictor = Predictor(groups)
    whole = predictor.predict(groups.alive(np.zeros(0, np.int64)))
    # one channel of each group stays
    gone = [row[1:] for each in groups.prunable for row in each.rows]
    least = predictor.predict(groups.alive(np.concatenate(gone or [np.zeros(0, np.int64)])))
    members = _members(groups)
    seen = [
        GroupSeen(
            each.name,
            each.size,
            tuple(dict.fromkeys(name for unit in each.units.tolist() for name in members.get(unit, ()))),
            each.readers,
            whole.params - predictor.predict(groups.alive(each.units)).params,
            each.frozen,
            each.inexact,
        )
        for each in groups.groups
    ]
    free = ["batch"] * graph.dynamic + ["height", "width"] * graph.spatial
    return Inspection(
        pfp_version=__version__,
        model={"name": source.name, "kind": source.kind, "sha256": source.sha256, "input_size": list(size)},
        params=whole.params,
        macs=whole.macs,
        open=tuple(free),
        stops=tuple(dict.fromkeys(graph.stops)),
        ops=dict(Counter(str(node.target) for node in graph.nodes if node.op == "call_function")),
        unknown=unknown_ops(groups),
        prunable={"params": 1 - least.params / max(1, whole.params), "macs": 1 - least.macs / max(1, whole.macs)},
        groups=seen,
    )


def ranking(source: LoadedModel, groups: Groups, scored: Scored, settings: Rank) -> Ranking:
    """The scores of a network; a layer that is used several times has the largest of its sensitivities."""
    layers: dict[str, np.ndarray] = {}
    for layer in scored.scores.layers:
        if layer.has_weights:
            layers[layer.name] = np.maximum(layer.channels, layers.get(layer.name, 0))
    size = scored.division.calibration.size
    seen = [(group.name, scored.scores.of(group)) for group in groups.prunable]
    return Ranking(
        model={"name": source.name, "kind": source.kind, "sha256": source.sha256, "input_size": list(size)},
        criterion=settings.criterion,
        reduce=settings.reduce,
        samples=scored.scores.samples,
        calibration=scored.division.recorded(),
        layers=[LayerRanked(name, values.tolist()) for name, values in layers.items()],
        groups=[GroupRanked(name, values.tolist()) for name, values in seen if not np.isnan(values).any()],
        warnings=list(scored.scores.remarks),
    )


def comparison(
    source: LoadedModel,
    settings: Compare,
    division: Division,
    points: list[Point],
    quality: Quality,
    skipped: dict[str, str],
    console: Console,
) -> Comparison:
    """Criteria on a model; quality: of any of the points."""
    size = division.calibration.size
    return Comparison(
        model={"name": source.name, "kind": source.kind, "sha256": source.sha256, "input_size": list(size)},
        of=settings.keep_of,
        metric=quality.metric,
        before=quality.before,
        n=quality.n,
        source=quality.source,
        calibration=division.recorded(),
        settings=settings.recorded(),
        points=points,
        skipped=skipped,
        warnings=console.warnings,
    )


def _members(groups: Groups) -> dict[int, list[str]]:
    """Unit -> the layers in whose tensors it sits."""
    members: dict[int, list[str]] = {}
    for node, axes in groups.labelled.axes.items():
        if node.op != "get_attr":
            continue
        units = {unit for vector in axes.vectors for unit in np.unique(groups.root[vector.numpy()]).tolist()}
        for unit in units:
            if owner(node) not in members.setdefault(unit, []):
                members[unit].append(owner(node))
    for part, owned in groups.owned.items():
        members[part] = list(dict.fromkeys(name for unit in owned.tolist() for name in members.get(unit, ())))
    return members


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "kernel": kernel.about() if device.type == "cpu" else "torch",
    }


def layers(slicing: Slicing) -> list[LayerRow]:
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
        if name in found:  # used again: what it costs adds up, what it holds does not
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
        )
    return list(found.values())


def group_rows(plan: Plan) -> list[GroupRow]:
    """Every group: how many channels it had and has, or why it was left alone."""
    return [
        GroupRow(g.name, g.size, kept * g.width, g.frozen, g.inexact, g.readers)
        for g, kept in zip(plan.groups.groups, plan.kept, strict=True)
    ]


def plan_json(plan: Plan, slicing: Slicing, readers: Sequence[Reader]) -> str:
    """The plan as text: what every tensor keeps, enough to cut the original checkpoint again.

    `tensors` maps the dotted name of a tensor to the indices kept along each dimension that got smaller (a list for
    each group of a grouped convolution where the groups keep others). `scale` maps a layer to what its weights for each
    channel it read are multiplied with, where channels were drawn.
    """
    tensors: dict[str, dict[str, list[int]]] = {}
    for node in slicing.labelled.graph.nodes:
        if node.op == "get_attr" and is_tensor(node) and slicing.is_cut(node):
            tensors[str(node.target)] = _kept(slicing, node)
    content: dict[str, Any] = {
        "schema_version": PLAN_VERSION,
        "keep": plan.achieved,
        "of": plan.budget.of,
        "epsilon": plan.epsilon,
        "groups": [{"name": row.name, "size": row.size, "kept": row.kept} for row in group_rows(plan)],
        "tensors": tensors,
        "scale": {
            reader.name: channel_factors(plan, reader).tolist()
            for reader in readers
            if reader.has_weights and plan.is_sampled
        },
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


def _kept(slicing: Slicing, node: Node) -> dict[str, Any]:
    """Dimension -> the indices kept, or a list of them for each part where the parts keep others."""
    kept: dict[str, Any] = {}
    for dim in slicing.axes(node).labels:
        mask = slicing.mask(node, dim)
        if mask is not None and not mask.all():
            kept[str(dim)] = np.flatnonzero(mask).tolist()
    for dim, ragged in slicing.axes(node).ragged.items():
        rows = slicing.alive[ragged.rows.numpy()]
        if not rows.all():
            kept[str(dim)] = [np.flatnonzero(row).tolist() for row in rows]
    return kept


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
