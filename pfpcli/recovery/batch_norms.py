"""Batch norms of a cut network get the mean and the spread that they put out in the original one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.graph.calls import bind
from pfpcli.recovery.lockstep import Lockstep
from pfpcli.recovery.tail import NORMS


class Recalibrate:
    """Visits the batch norms of a cut network and takes their running statistics again.

    With x what one reads in the original network and x_hat in the cut one, per channel over images and positions:

        r = std(x_hat) / std(x),    sqrt(var' + eps) = r sqrt(var + eps),    mean' = mean(x_hat) - r (mean(x) - mean)

    so that nothing changes where x_hat = x.

    Args:
        pair: the networks side by side.
    """

    def __init__(self, pair: Lockstep) -> None:
        self._pair = pair

    def __call__(self, node: Node) -> None:
        """Take the statistics of a call, if it has any."""
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
    """(mean, standard deviation) of each channel: float64[C].

    Args:
        batches: float[N, C, ...] each, of this process; there may be none.
        like: float[C].
    """
    rows = [x.movedim(1, 0).flatten(1) for x in batches]
    none = torch.zeros_like(like, dtype=torch.float64)
    count = max(1, processes.total(sum(x.shape[1] for x in rows)))
    mean = processes.total(sum((x.sum(1, dtype=torch.float64) for x in rows), none)) / count
    spread = processes.total(sum(((x.double() - mean[:, None]).square().sum(1) for x in rows), none)) / count
    return mean, spread.sqrt()
