"""`pfp inspect`: show what can be cut from a model, what cannot, and why."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pfpcli._version import __version__
from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.graph.graph import owner
from pfpcli.jobs.recorded import model_row
from pfpcli.jobs.steps.open import input_size, load_model, trace_groups, unknown_ops
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.progress import Console
from pfpcli.records.inspection import GroupSeen, Inspection, OutputSeen
from pfpcli.settings import NetworkSettings


def inspect(settings: NetworkSettings, console: Console) -> Inspection:
    """Look at a model.

    Raises:
        PfpError: it could not be loaded or traced.
    """
    model = load_model(settings, console)
    size = input_size(model, settings.input_size)
    return _inspection(model, size, trace_groups(model, size, settings, console))


def _inspection(model: LoadedModel, size: tuple[int, ...], groups: Groups) -> Inspection:
    graph, predictor, nothing = groups.labelled.graph, Predictor(groups), np.zeros(0, np.int64)
    whole = predictor.predict(groups.alive(nothing))
    # the smallest network keeps one channel of each group
    dropped = [row[1:] for each in groups.prunable for row in each.rows]
    least = predictor.predict(groups.alive(np.concatenate(dropped or [nothing])))
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
    return Inspection(
        pfp_version=__version__,
        model=model_row(model, size),
        params=whole.params,
        macs=whole.macs,
        open=tuple(["batch"] * graph.dynamic + ["height", "width"] * graph.spatial),
        stops=tuple(dict.fromkeys(graph.stops)),
        ops=dict(Counter(str(node.target) for node in graph.nodes if node.op == "call_function")),
        unknown=unknown_ops(groups),
        prunable={"params": 1 - least.params / max(1, whole.params), "macs": 1 - least.macs / max(1, whole.macs)},
        groups=seen,
        outputs=[OutputSeen(role.name, role.kind, role.axis, role.why) for role in graph.roles],
    )


def _members(groups: Groups) -> dict[int, list[str]]:
    """Unit -> the layers in whose tensors it is."""
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
