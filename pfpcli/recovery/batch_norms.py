"""Batch norms: give the results of a cut network's batch norms the mean and spread they have in the original."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.channels.rules.statistics import NORMS
from pfpcli.graph.calls import bind
from pfpcli.recovery.call_by_call import recover_calls
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

    def wants(self, node: Node) -> bool:
        """Whether a call is a batch norm with running statistics."""
        is_norm = str(node.target) in NORMS and isinstance(node.args[0], Node)
        return is_norm and bind(node)["running_mean"] is not None

    def __call__(self, node: Node) -> None:
        """Replace the running statistics of a batch norm."""
        given, x = bind(node), node.args[0]
        assert isinstance(x, Node)
        mean, var = (self._pair.tensor(given[name]) for name in ("running_mean", "running_var"))
        m, s = _moments(lambda: (batch.original(x) for batch in self._pair.batches), mean)
        m_hat, s_hat = _moments(lambda: (batch.now(x) for batch in self._pair.batches), mean)
        ratio = torch.where(s > 0, s_hat / s, 1.0)
        mean.copy_(m_hat - ratio * (m - mean))
        var.copy_((ratio.square() * (var + given["eps"]) - given["eps"]).clamp(min=0))


def _moments(batches: Callable[[], Iterable[Tensor]], like: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the standard deviation of each channel, float64[C] each, over the batches of all processes.

    Args:
        batches: returns float[N, C, ...] each, of this process; may be empty.
        like: float[C], a tensor on the device of the batches.
    """
    count, added = 0, torch.zeros_like(like, dtype=torch.float64)
    for x in batches():
        count, added = count + x.numel() // x.shape[1], added + x.movedim(1, 0).flatten(1).sum(1, dtype=torch.float64)
    rows = max(1, processes.total(count))
    mean, spread = processes.total(added) / rows, torch.zeros_like(added)
    for x in batches():
        spread += (x.movedim(1, 0).flatten(1).double() - mean[:, None]).square().sum(1)
    spread = processes.total(spread) / rows
    return mean, spread.sqrt()
