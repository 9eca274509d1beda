"""Replan: a plan read back from the plan.json of a run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pfpcli.cost import Predictor
from pfpcli.errors import InputError
from pfpcli.graph import is_tensor
from pfpcli.groups import Groups
from pfpcli.plan import Budget, Plan, everything
from pfpcli.readers import Reader


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
    return replace(whole, alive=alive, scale=scale, after=predictor.predict(alive), epsilon=content["epsilon"])


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
    return ~np.isin(groups.root, groups.root[np.concatenate(dropped)])
