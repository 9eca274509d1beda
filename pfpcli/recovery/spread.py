"""Spread: the scores of a refitted network vary as much as the original's.

Least squares draw what the kept channels cannot tell towards the mean. Scores that are compared with a threshold then
stay below it, and a detector finds a part of what it found. So each channel of a layer that scores is stretched, after
the weights are solved, until its mean and its spread are those of the original:

    z  ->  mean(y) + sd(y) / sd(z) * (z - mean(z))

over the rows of the problem, each as often as it counts there. That is not the closest fit: it trades squared error for
as many decisions above the threshold as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.channels import rules
from pfpcli.graph.graph import Graph, is_tensor, reached
from pfpcli.graph.run import Run
from pfpcli.outputs.heads import detectors
from pfpcli.outputs.roles import real, roles_of, select, shape
from pfpcli.recovery.refit_layers import is_layer

#: Scores are stretched at most this many times: what a fit hardly tells would become noise.
MOST = 2.0

#: What a row of a layer counts (its root), what the layer reads there, and what it makes in the original.
ReadRows = tuple[Tensor, Tensor, Tensor]

#: Call of a layer -> bool[C_out], the channels that are scores.
ScoreChannels = dict[str, Tensor]


def score_channels(whole: Graph, device: torch.device) -> ScoreChannels:
    """Return the channels that are scores which are compared with a threshold, of the layers that no other layer reads.

    These are independent scores (the role `sigmoid`), and the scores of boxes.

    Args:
        whole: the original, on a device.
        device: the device.
    """
    roles, calls = roles_of(whole), {node for node in whole.nodes if is_layer(node)}
    outputs = [node for node in whole.outputs if is_tensor(node) and node.meta["val"].is_floating_point()]
    heads = detectors(roles, [shape(role, outputs[role.output]) for role in roles])
    wanted = {i for i, role in enumerate(roles) if role.kind == "sigmoid"}
    wanted |= {i for levels in heads for head in levels for i in head.scores}
    if not wanted:
        return {}
    last = {call for call in calls if not calls & _behind([call])}
    run = _Leaves(whole, last)
    made = select(real(run.run(*(x.to(device) for x in whole.example))), roles)
    # at random, because a softmax does not depend on the sum of its scores
    random = torch.Generator().manual_seed(0)
    with torch.enable_grad():
        scores = [(made[i] * torch.randn(made[i].shape, generator=random).to(made[i])).sum() for i in sorted(wanted)]
    scores = [each for each in scores if each.requires_grad]
    if not scores:
        return {}
    try:
        slopes = torch.autograd.grad(scores, [*run.leaves.values()], allow_unused=True)
    except RuntimeError:  # an op without a derivative; the scores stay as they are solved
        return {}
    channels = {}
    for call, slope in zip(run.leaves, slopes, strict=True):
        if slope is not None:
            channels[call.name] = slope.movedim(rules.output_dim(call), 0).flatten(1).abs().amax(1) > 0
    return channels


def kept_spread(found: Tensor, rows: Iterable[ReadRows], channels: Tensor) -> Tensor:
    """Return the solution of a layer with its scores stretched to the mean and the spread of the original's.

    Args:
        found: float64[G, K + 1, O], the solution, the intercept last.
        rows: (root float32[1, M, 1] of what each row counts, x float32[G, M, K + 1], y float32[G, M, O]) each, with y
            of the original.
        channels: bool[G, 1, O], which channels are scores.
    """
    groups, _, outputs = found.shape
    # counts, and the sums of what the original and the refitted layer make, and of their squares
    sums = torch.zeros(5, groups, 1, outputs, dtype=torch.float64, device=found.device)
    for root, x, y in rows:
        count, z = root.double().square(), (x @ found.to(x)).double()
        y = y.double()
        for into, each in zip(sums, (torch.ones_like(y), y, y.square(), z, z.square()), strict=True):
            into += (count * each).sum(1, keepdim=True)
    count, *moments = processes.total(sums)
    y, y2, z, z2 = (each / count.clamp_min(1) for each in moments)
    spreads = [(square - mean.square()).clamp_min(0).sqrt() for mean, square in ((y, y2), (z, z2))]
    times = (spreads[0] / spreads[1]).nan_to_num(1.0, 1.0).clamp(1, MOST)
    weights, free = found[:, :-1] * times, y + times * (found[:, -1:] - z)
    return torch.where(channels, torch.cat([weights, free], 1), found)


def _behind(calls: Iterable[Node]) -> set[Node]:
    """Return all nodes that depend on some calls."""
    return reached((user for call in calls for user in call.users), lambda node: node.users)


class _Leaves(Run):
    """Runs a network in which the results of some calls are leaves, and only what is behind them is differentiated.

    Attributes:
        leaves: call -> its result.
    """

    def __init__(self, graph: Graph, calls: set[Node]) -> None:
        super().__init__(graph.module)
        self._calls, self._behind = calls, _behind(calls)
        self.leaves: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        with torch.set_grad_enabled(n in self._behind):
            value = super().run_node(n)
        if n in self._calls:
            value = self.leaves[n] = value.detach().requires_grad_()
        return value
