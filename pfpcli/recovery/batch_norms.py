"""Batch norms: give the results of a cut network's batch norms the mean and spread they have in the original."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.graph.calls import bind
from pfpcli.recovery.call_by_call import recover_calls
from pfpcli.recovery.epilogue import NORMS
from pfpcli.recovery.paired_run import PairedRun
from pfpcli.recovery.task import RecoveryTask


def recalibrate(task: RecoveryTask) -> int:
    """Replace the running statistics of the batch norms; returns the number of images."""
    return recover_calls(task, Recalibrate)


class Recalibrate:
    """A visitor of the calls of a cut network that replaces the running statistics of its batch norms.

    With x the input of a batch norm in the original and x_hat its input in the cut network, for each channel, over
    images and positions:

        r = std(x_hat) / std(x),    sqrt(var' + eps) = r sqrt(var + eps),    mean' = mean(x_hat) - r (mean(x) - mean)

    The statistics stay the same where x_hat = x.

    Args:
        pair: both networks.
    """

    def __init__(self, pair: PairedRun) -> None:
        self._pair = pair

    def __call__(self, node: Node) -> None:
        """Replace the running statistics of a call, if it is a batch norm with such statistics."""
        if str(node.target) not in NORMS:
            return
        given, x = bind(node), node.args[0]
        if not isinstance(x, Node) or given["running_mean"] is None:
            return
        mean, var = (self._pair.tensor(given[name]) for name in ("running_mean", "running_var"))
        (m, s), (m_hat, s_hat) = (_moments(batches, mean) for batches in (self._pair.original(x), self._pair.now(x)))
        ratio = torch.where(s > 0, s_hat / s, 1.0)
        mean.copy_(m_hat - ratio * (m - mean))
        var.copy_((ratio.square() * (var + given["eps"]) - given["eps"]).clamp(min=0))


def _moments(batches: list[Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel, float64[C] each, over the batches of all processes.

    Args:
        batches: float[N, C, ...] each, of this process; may be empty.
        like: float[C], a tensor on the device of the batches.
    """
    rows = [x.movedim(1, 0).flatten(1) for x in batches]
    none = torch.zeros_like(like, dtype=torch.float64)
    count = max(1, processes.total(sum(x.shape[1] for x in rows)))
    mean = processes.total(sum((x.sum(1, dtype=torch.float64) for x in rows), none)) / count
    spread = processes.total(sum(((x.double() - mean[:, None]).square().sum(1) for x in rows), none)) / count
    return mean, spread.sqrt()
