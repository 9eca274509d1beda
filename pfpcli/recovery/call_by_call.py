"""Recovery call by call: a visitor changes the tensors of each call before the cut network runs it."""

from __future__ import annotations

from collections.abc import Callable

from torch.fx.node import Node

from pfpcli import processes
from pfpcli.channels.cost import count
from pfpcli.recovery.paired_run import PairedRun, Visitor, peak_numbers
from pfpcli.recovery.shelf import MOST_BYTES, MOST_BYTES_ELSEWHERE, Shelf
from pfpcli.recovery.task import Progress, RecoveryTask

#: The largest number of images; and of multiply-adds of the original on all of them, if that leaves `FEWEST` images.
MOST_IMAGES, MOST_MACS, FEWEST = 1024, 2e12, 64
#: The most numbers that the original holds at one time for the images that run together: on a CPU, and elsewhere.
TOGETHER = 1 << 24
TOGETHER_ELSEWHERE = 1 << 28


def recover_calls(task: RecoveryTask, make_visitor: Callable[[PairedRun], Visitor], most: int = MOST_IMAGES) -> int:
    """Run both networks on the fitting images and visit the calls of the cut network.

    Args:
        task: the cut network and the images.
        make_visitor: returns the visitor of the calls of a paired run.
        most: the largest number of images.

    Returns:
        The number of images.
    """
    whole, smaller = task.cut.slicing.labelled.graph, task.cut.graph
    affordable = max(FEWEST, int(MOST_MACS // max(1, count(whole).macs)))
    most = max(whole.batch, min(most, affordable))
    with whole.on(task.device), smaller.on(task.device):
        on_cpu = task.device.type == "cpu"
        pair = PairedRun(task.cut, Shelf(MOST_BYTES if on_cpu else MOST_BYTES_ELSEWHERE))
        numbers = TOGETHER if on_cpu else TOGETHER_ELSEWHERE
        images, together = 0, max(1, numbers // max(1, peak_numbers(whole)))
        for x, _ in task.division.fitting(whole.fixed_batch, most):
            for some in x.split(whole.fixed_batch or together):
                if processes.is_mine(x):
                    pair.add(images, some.to(task.device))
                images += len(some)
        visitor = make_visitor(pair)
        calls = sum(visitor.wants(node) for node in smaller.nodes if node.op == "call_function")
        pair.run(_Shown(visitor, calls, task.progress))
    return images


class _Shown:
    """A visitor that reports its progress."""

    def __init__(self, visitor: Visitor, total: int, progress: Progress) -> None:
        self.wants = visitor.wants
        self._visitor, self._total, self._progress = visitor, total, progress
        self._done = 0

    def __call__(self, node: Node) -> None:
        """Visit a call."""
        self._visitor(node)
        self._done += 1
        self._progress(self._done, self._total, "layers")
