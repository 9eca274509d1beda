"""Recover a cut network by one method, and undo the method if it made the network worse."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pfpcli.activations.quality import compare, likeness
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.records.parts import Recovered
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.recovery.task import RecoveryTask


def recover(method: str, task: RecoveryTask) -> Recovered:
    """Recover a cut network; its tensors change in place.

    The likeness of both networks is measured on the checking images before and after the method. If it falls, the
    tensors get their old values back. Without checking images the result of the method stays.

    Args:
        method: one of `pfpcli.recovery.methods.RECOVERIES`.
        task: the cut network, the images and the limits.
    """
    smaller = task.cut.graph
    tensors = {name: tensor.clone() for name, tensor in smaller.module.state_dict().items()}
    metric, before = _likeness(task)
    images = RECOVERIES[method].load()(task)
    _, after = _likeness(task)
    undone = before is not None and after is not None and after < before
    if undone:
        smaller.module.load_state_dict(tensors)
    return Recovered(method, metric, before, after, undone, images, len(task.division.checked))


def _likeness(task: RecoveryTask) -> tuple[str, float | None]:
    """The metric and the likeness of both networks on the checking images; None if there are no such images."""
    if not len(task.division.checked):
        return "agreement", None
    whole = task.cut.slicing.labelled.graph
    return likeness(compare(whole, task.cut.graph, task.division.checking(whole.fixed_batch), "", task.device))


def copy_tensors(source: Graph, target: Graph) -> None:
    """Copy the tensors of a graph into the tensors of the same names and shapes of another graph.

    Args:
        source: the graph to read, for example a network that was cut and recovered in several steps.
        target: the graph to change, for example the same network, cut in one step.
    """
    named = dict(_tensors(source))
    with torch.no_grad():
        for name, tensor in _tensors(target):
            if name in named:
                tensor.copy_(named[name])


def _tensors(graph: Graph) -> Iterator[tuple[str, Tensor]]:
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            yield str(node.target), graph.tensor(node)
