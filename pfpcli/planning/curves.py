"""Curves: what is lost when one group is cut to a few widths, made good as far as it can be, and the rest is left.

The layers that read the group are refitted to what stays, each on its own, on what they read in the original network.
A curve is measured where the network ends, by how far its outputs diverge, and, for comparison, at these layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gates import GatedNetwork
from pfpcli.activations.gram_matrices import Gram, Narrowed, bundles
from pfpcli.activations.losses import divergence, real
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels import rules
from pfpcli.channels.groups import Group

#: What a curve is measured by: how far the outputs diverge, and what the layers that read the group cannot make good.
MEASURED = ("divergence", "error")
#: Fractions of its steps that a group is cut to.
WIDTHS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
#: Images that measure a curve, at most; and at most so many MACs for all of them.
IMAGES, MOST_MACS = 128, 4e12
#: Losses are at least this much: their logarithms are interpolated.
_TINY = 1e-9


@dataclass(frozen=True)
class Curve:
    """What a group loses.

    Attributes:
        steps: that it has, n.
        kept: int64[w], widths that were measured, from the largest down.
        losses: for each of `MEASURED`, float64[w].
    """

    positions: int
    kept: NDArray[np.int64]
    losses: dict[str, NDArray[np.float64]]

    def at_every_width(self, of: str) -> NDArray[np.float64]:
        """float64[n + 1], the loss with each number of steps kept; never less where fewer are.

        Between the widths that were measured, and beyond them, it goes as a power of the number of steps that go.
        """
        if not len(self.kept):
            return np.where(np.arange(self.positions + 1) < self.positions, np.inf, 0.0)
        gone, known = self.positions - np.arange(self.positions + 1), self.positions - self.kept
        logs = np.log(np.maximum.accumulate(np.maximum(self.losses[of], _TINY)))
        x, at = np.log(np.maximum(gone, 0.5)), np.log(known)
        power = max(1.0, (logs[-1] - logs[0]) / (at[-1] - at[0])) if len(at) > 1 else 1.0
        found = np.interp(x, at, logs)
        found += power * (np.minimum(x - at[0], 0) + 2 * np.maximum(x - at[-1], 0))
        found = np.exp(found)
        found[self.positions] = 0
        return np.asarray(found)


def curves(task: Task, orders: Sequence[tuple[Group, NDArray[np.int64]]], macs: int) -> list[Curve]:
    """Measure the curve of each group.

    Args:
        task: what to measure on.
        orders: groups and int64[n, parts], their units from the ones to keep first to the ones that go first.
        macs: multiply-adds of the network for one image; with more of them, fewer images are looked at.
    """
    with task.groups.labelled.graph.on(task.device):
        steps = {id(group): order for group, order in orders}
        cuts: dict[int, _Cuts] = {}
        for bundle in bundles(task, [group for group, _ in orders]):
            for group, grams in bundle:
                cuts[id(group)] = _Cuts.of(task, group, steps[id(group)], grams)
        ordered = [cuts[id(group)] for group, _ in orders]
        runs = sum(len(cut.kept) for cut in ordered)
        images = int(np.clip(MOST_MACS / max(1, macs * runs), 8, IMAGES))
        _measure(task, ordered, images)
    found = [cut.curve() for cut in ordered]
    return processes.of_first(lambda: found)


def _measure(task: Task, cuts: list[_Cuts], images: int) -> None:
    graph = task.groups.labelled.graph
    needed = {node for cut in cuts for node in cut.probe.needed}
    run, together = ValueRecorder(graph, needed), at_a_time(graph, needed)
    with torch.no_grad():
        for x, _ in task.images(images):
            for some in x.split(together):
                whole = real(run.run(some))
                for cut in cuts:
                    cut.measure(run.values, whole, len(some))


@dataclass
class _Cuts:
    """A group at its widths, what the layers that read it are then, and what that has come to so far."""

    probe: _Probe
    positions: int
    kept: list[int]
    gates: list[Tensor]
    refits: list[dict[Node, tuple[Node, Narrowed]]]
    error: NDArray[np.float64]
    diverged: NDArray[np.float64] = field(init=False)
    images: int = 0

    def __post_init__(self) -> None:
        self.diverged = np.zeros(len(self.kept))

    @classmethod
    def of(cls, task: Task, group: Group, order: NDArray[np.int64], grams: list[Gram]) -> _Cuts:
        """Refit the layers at every width."""
        owned = [unit for head in group.units if head in task.groups.owned for unit in task.groups.owned[head]]
        kept = sorted({max(1, round(width * len(order))) for width in WIDTHS} - {len(order)}, reverse=True)
        alive = [torch.from_numpy(task.groups.alive(order[count:].reshape(-1))) for count in kept]
        refits = [{gram.reader.node: (gram.reader.weight, gram.refit(each)) for gram in grams} for each in alive]
        error = np.asarray([sum(refit.error for _, refit in each.values()) for each in refits])
        gates = [each.to(task.device, torch.float32) for each in alive]
        probe = _Probe(task.groups, task.device, {*group.units.tolist(), *owned})
        return cls(probe, len(order), kept, gates, refits, error)

    def measure(self, values: dict[Node, object], whole: list[Tensor], images: int) -> None:
        """Add how far the outputs diverge at every width; values and outputs of the whole network."""
        for i, (gates, refits) in enumerate(zip(self.gates, self.refits, strict=True)):
            self.probe.gates, self.probe.refits = gates, refits
            self.diverged[i] += float(divergence(real(self.probe.rerun(values)), whole))
        self.images += images

    def curve(self) -> Curve:
        """What was measured, by all processes."""
        diverged, images = processes.total(self.diverged), processes.total(self.images)
        losses = {"divergence": diverged / max(1, images), "error": self.error}
        return Curve(self.positions, np.asarray(self.kept, np.int64), losses)


class _Probe(GatedNetwork):
    """A network with gates, and with other weights in the layers that read them.

    Attributes:
        refits: call -> (the operand that is its weights, what is in their place).
    """

    refits: dict[Node, tuple[Node, Narrowed]]

    def run_node(self, n: Node) -> Any:
        """Run one node."""
        if n not in self.refits:
            return super().run_node(n)
        operand, refit = self.refits[n]
        rule, whole = rules.find(n.target), self.env[operand]
        assert rule is not None
        self.env[operand] = refit.weight
        try:
            made = super().run_node(n)
        finally:
            self.env[operand] = whole
        sizes = [1] * made.dim()
        sizes[rule.made] = -1
        return made + refit.added.view(sizes)
