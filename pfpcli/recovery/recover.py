"""Recover a cut network by one method, and undo the method if it made the network worse."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pfpcli import memory
from pfpcli.activations.stored_tensors import NamelessFile, StoredTensor
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.quality import compare, likeness, standard_error
from pfpcli.records.parts import Quality, Recovered
from pfpcli.recovery.closeness import closeness
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.recovery.task import RecoveryTask

#: Smaller differences come from the order in which numbers are added, for example in several processes.
_ROUNDING = 1e-6
#: A share of equal decisions differs by up to so many standard errors by chance (95 %).
_CHANCE = 2


def recover(method: str, task: RecoveryTask) -> Recovered:
    """Recover a cut network; its tensors change in place.

    Both networks are compared on the checking images before and after the method. If the cut network has got worse
    (`_is_worse`), the tensors get their old values back. Without checking images the result of the method stays.

    Args:
        method: one of `pfpcli.recovery.methods.RECOVERIES`.
        task: the cut network, the images and the limits.
    """
    smaller = task.cut.graph
    file = NamelessFile()
    tensors = {name: StoredTensor(file, tensor) for name, tensor in smaller.module.state_dict().items()}
    known = KnownOutputs()
    before = _compared(task, known)
    images = RECOVERIES[method].load()(task)
    memory.give_back()  # comparing takes memory of other sizes
    after = _compared(task, known)
    if before is None or after is None:
        return Recovered(method, "agreement", None, None, False, images, 0, remarks=task.remarks)
    undone = _is_worse(before, after)
    if undone:
        smaller.module.load_state_dict({name: tensor.read() for name, tensor in tensors.items()})
    metric, alike = likeness(before.quality)
    return Recovered(
        method,
        metric,
        alike,
        likeness(after.quality)[1],
        undone,
        images,
        len(task.division.checked),
        before.closeness,
        after.closeness,
        task.remarks,
    )


class _Compared(NamedTuple):
    """A cut network compared with the original on the checking images."""

    quality: Quality
    closeness: float


def _compared(task: RecoveryTask, known: KnownOutputs) -> _Compared | None:
    """The cut network compared with the original, whose outputs may be known; None without checking images."""
    if not len(task.division.checked):
        return None
    whole, smaller = task.cut.slicing.labelled.graph, task.cut.graph
    images = partial(task.division.checking, whole.fixed_batch)
    quality = compare(whole, smaller, images(), "", task.device, known=known)
    return _Compared(quality, closeness(whole, smaller, images(), task.device, known))


def _is_worse(before: _Compared, after: _Compared) -> bool:
    """Whether a method has made a network worse.

    The quality of the outputs tells. The share of equal decisions tells only if it rises, or falls by more than chance
    explains on so few images. Otherwise the closeness does: of a network that decides at random before and after, it
    still says which is nearer.
    """
    rise = likeness(after.quality)[1] - likeness(before.quality)[1]
    agreement, count = before.quality.agreement, before.quality.n
    slack = _ROUNDING if agreement is None else _CHANCE * standard_error(agreement, count)
    if rise > _ROUNDING or -rise > slack:
        return rise < 0
    return after.closeness < before.closeness * (1 - _ROUNDING)


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
