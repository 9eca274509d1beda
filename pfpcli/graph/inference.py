"""Inference mode: a network whose outputs depend on the image alone.

Batch statistics make the output of an image depend on the other images of its batch; random numbers make it another
one each time. Nothing that is measured on such a network holds for the next image.
"""

from __future__ import annotations

import torch
from torch import fx

from pfpcli.graph.calls import bind
from pfpcli.graph.graph import Graph, is_tensor


def training_op(graph: fx.Graph) -> str:
    """Return the name of an op that uses batch statistics or random numbers; "" if there is none.

    A graph keeps the mode that it was traced in: `eval()` changes nothing.
    """
    return next((str(node.target) for node in graph.nodes if node.op == "call_function" and _trains(node)), "")


def _trains(node: fx.Node) -> bool:
    if getattr(node.target, "_schema", None) is None:
        return False
    given = bind(node)
    for name in ("train", "training"):
        if name in given:
            return given[name] is not False
    if torch.Tag.nondeterministic_seeded not in node.target.tags:  # type: ignore[union-attr]
        return False
    return bool(given.get("dropout_p", True))  # attention without dropout is not random


def negative_variance(graph: Graph) -> str:
    """Return the name of a norm's running variance that has negative numbers; "" if there is none."""
    for node in graph.nodes:
        stored = bind(node).get("running_var") if getattr(node.target, "_schema", None) is not None else None
        if isinstance(stored, fx.Node) and stored.op == "get_attr" and is_tensor(stored):
            negative = bool((graph.tensor(stored) < 0).any())
            if negative:
                return str(stored.target)
    return ""
