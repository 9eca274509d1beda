"""Replan: a plan read back from the plan.json of a run, and plans that follow each other made one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.errors import InputError
from pfpcli.graph.graph import is_tensor
from pfpcli.planning.plan import Budget, Plan, everything


def replan(content: dict[str, Any], groups: Groups, readers: list[Reader]) -> Plan:
    """The plan of a run, for the network it was made for.

    Args:
        content: as it stands in plan.json.
        groups: the network's units.
        readers: the layers that read channels.

    Raises:
        InputError: it names tensors the network does not have.
    """
    alive = _alive(content["tensors"], groups)
    scale = np.ones(len(alive))
    for reader in readers:
        factors = np.asarray(content["scale"].get(reader.name, []))
        labels = reader.contraction.labels.numpy()
        if len(factors) == len(labels):
            scale[labels[alive[labels]]] = factors[alive[labels]]
    predictor = Predictor(groups)
    whole = everything(groups, predictor, Budget(content["keep"], content["of"]))
    kept = tuple(int(alive[group.rows[0]].sum()) for group in groups.groups)
    after = predictor.predict(alive)
    return replace(whole, alive=alive, scale=scale, kept=kept, after=after, epsilon=content["epsilon"])


def follow(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two plans as one: of a network, and of what the first one leaves of it; contents of plan.json."""
    tensors = {name: dict(dims) for name, dims in first["tensors"].items()}
    for name, dims in second["tensors"].items():
        mine = tensors.setdefault(name, {})
        for dim, kept in dims.items():
            mine[dim] = _kept_of_kept(mine[dim], kept) if dim in mine else kept
    scale = {name: list(factors) for name, factors in first["scale"].items()}
    for name, factors in second["scale"].items():
        if name in scale:  # what the first dropped is 0 and is not among those of the second
            left = iter(factors)
            scale[name] = [factor and factor * next(left) for factor in scale[name]]
        else:
            scale[name] = factors
    return {**second, "tensors": tensors, "scale": scale}


def _kept_of_kept(before: list[Any], kept: list[Any]) -> list[Any]:
    """Indices among indices; lists of them, one for each part, where the parts keep others."""
    if before and isinstance(before[0], list):
        # a part that is gone is none of those that the second plan knows
        rows = iter(kept if kept and isinstance(kept[0], list) else [kept] * len(before))
        return [[row[i] for i in next(rows)] if row else [] for row in before]
    if kept and isinstance(kept[0], list):
        return [[before[i] for i in row] for row in kept]
    return [before[i] for i in kept]


def _alive(tensors: dict[str, dict[str, Any]], groups: Groups) -> NDArray[np.bool_]:
    """bool[labels]: what stays, from the indices that every tensor keeps."""
    nodes = {str(n.target): n for n in groups.labelled.graph.nodes if n.op == "get_attr" and is_tensor(n)}
    if not tensors.keys() <= nodes.keys():
        raise InputError(
            f"plan.json: names {min(tensors.keys() - nodes.keys())}, which this model does not have",
            "name the model the run was made of",
        )
    dropped = [np.zeros(0, np.int64)]
    for name, dims in tensors.items():
        axes = groups.labelled.axes[nodes[name]]
        for dim, kept in dims.items():
            if int(dim) in axes.ragged:
                rows = axes.ragged[int(dim)].rows.numpy()
                dropped += [np.delete(row, left) for row, left in zip(rows, kept, strict=True)]
            else:
                dropped.append(np.delete(axes.labels[int(dim)].numpy(), kept))
    units = np.unique(groups.root[np.concatenate(dropped)])
    # a part is in no tensor of its own: it is gone where nothing of what it owns is left
    parts = [part for part, owned in groups.owned.items() if np.isin(owned, units).all()]
    return groups.alive(np.concatenate([units, np.asarray(parts, np.int64)]))
