"""Recovery call by call: a visitor changes the tensors of each call before the cut network runs it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from torch.fx.node import Node

from pfpcli import processes
from pfpcli.recovery.paired_run import PairedRun, peak_numbers
from pfpcli.recovery.task import RecoveryTask

#: The largest number of images, and of bytes for the activations of both networks on these images.
MOST_IMAGES, MOST_BYTES = 1024, 1 << 32


def recover_calls(
    task: RecoveryTask, make_visitor: Callable[[PairedRun], Callable[[Node], None]], images: int = MOST_IMAGES
) -> int:
    """Run both networks on the fitting images and visit every call of the cut network.

    Args:
        task: the cut network and the images.
        make_visitor: returns the visitor of the calls of a paired run.
        images: the largest number of images.

    Returns:
        The number of images.
    """
    whole, smaller = task.cut.slicing.labelled.graph, task.cut.graph
    most = MOST_BYTES // (4 * max(1, peak_numbers(whole) + peak_numbers(smaller)))
    most = max(whole.batch, min(images, most))
    with whole.on(task.device), smaller.on(task.device):
        pair = PairedRun(task.cut)
        batches = [x for x, _ in task.division.fitting(whole.fixed_batch, most)]
        firsts = [0, *accumulate(map(len, batches))]
        mine = {i: x.to(task.device) for i, x in zip(firsts, batches, strict=False) if processes.is_mine(x)}
        visitor, total, done = make_visitor(pair), sum(n.op == "call_function" for n in smaller.nodes), 0

        def visit(node: Node) -> None:
            nonlocal done
            visitor(node)
            done += 1
            task.progress(done, total, "ops")

        pair.run(mine, visit)
    return sum(map(len, batches))
