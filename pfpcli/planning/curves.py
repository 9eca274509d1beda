"""Curves: what the network loses when one group is cut to a few widths and all other groups keep everything.

For each width, every layer that reads the group is refitted by itself to the kept channels, on its inputs in the
original network. A curve has three losses for each width: the distance of the outputs of the network from the
original's, their divergence, and the errors of the refitted layers. None is measured on images that a layer was
refitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gated_network import GatedNetwork
from pfpcli.activations.gram_matrices import Gram, Refit, fitted_gram_batches
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels import rules
from pfpcli.channels.groups import Group
from pfpcli.graph.role import Role
from pfpcli.outputs.losses import distance, divergence, relative_distance
from pfpcli.outputs.roles import real, roles_of, select

#: The losses of a curve: the distance and the divergence of the outputs, and the error of the refitted layers.
MEASURED = ("distance", "divergence", "error")
#: A group is cut to these fractions of its positions.
WIDTHS = (0.875, 0.625, 0.375, 0.125)
#: The most images that curves are measured on, and the most MACs of all their runs.
IMAGES, MOST_MACS = 32, 1e12
#: The part of the work on a group that its refits are, about, for the progress.
_REFITTED = 0.5
#: The fewest images that curves are measured on.
_FEWEST_IMAGES = 8
#: Smaller losses count as this much, because the logarithms of losses are interpolated.
_TINY = 1e-9
#: A loss that is not finite counts as this much.
_HUGE = 1e12
#: Below the smallest measured width nothing is known: a loss there counts this many times.
_UNKNOWN = 1e6


@dataclass(frozen=True)
class Curve:
    """The loss of the network as a function of the number of positions that one group keeps.

    Attributes:
        positions: n, the positions of the group.
        kept: int64[w], the widths that were measured, in descending order.
        losses: one of `MEASURED` -> float64[w].
    """

    positions: int
    kept: NDArray[np.int64]
    losses: dict[str, NDArray[np.float64]]

    def at_every_width(self, of: str) -> NDArray[np.float64]:
        """Return the loss for every number of kept positions: float64[n + 1]; convex, so it never falls with fewer.

        Between the measured widths, and beyond them, the loss is a power of the number of dropped positions. The
        largest convex function below it is returned: what a group gains by one position more then falls with its
        width, so that minimising loss + price * width trims all groups rather than destroy one.

        Args:
            of: one of `MEASURED`.
        """
        if not len(self.kept):
            return np.where(np.arange(self.positions + 1) < self.positions, np.inf, 0.0)
        dropped, known = self.positions - np.arange(self.positions + 1), self.positions - self.kept
        finite = np.nan_to_num(self.losses[of], nan=_HUGE, posinf=_HUGE)
        logs = np.log(np.maximum.accumulate(np.maximum(finite, _TINY)))
        x, at = np.log(np.maximum(dropped, 0.5)), np.log(known)
        power = max(1.0, (logs[-1] - logs[0]) / (at[-1] - at[0])) if len(at) > 1 else 1.0
        found = np.interp(x, at, logs)
        found += power * (np.minimum(x - at[0], 0) + 2 * np.maximum(x - at[-1], 0))
        found = np.exp(found)
        found[: self.kept.min()] *= _UNKNOWN
        found[self.positions] = 0
        return convex(found)


def convex(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest convex function that is nowhere above some values: float64[n] for float64[n]."""
    corners: list[int] = []
    for i in range(len(values)):
        # a corner above the line from the one before it to this value is none
        while len(corners) > 1 and _rise(values, corners[-2], corners[-1]) >= _rise(values, corners[-2], i):
            corners.pop()
        corners.append(i)
    return np.interp(np.arange(len(values)), corners, values[corners])


def _rise(values: NDArray[np.float64], a: int, b: int) -> float:
    return float((values[b] - values[a]) / (b - a))


def curves(
    task: Task,
    measuring: Task,
    orders: Sequence[tuple[Group, NDArray[np.int64]]],
    macs: int,
    progress: Callable[[float], None] = lambda share: None,
) -> list[Curve]:
    """Measure the curve of each group.

    Args:
        task: the network and the fitting images.
        measuring: the same network and the images that measure the losses: others, as far as there are any.
        orders: groups and int64[n, parts], their units from the first to keep to the first to drop.
        macs: multiply-adds of the network for one image; larger networks are measured on fewer images.
        progress: receives the share of the work that is done, 0 to 1.
    """
    order_of = {id(group): order for group, order in orders}
    runs = sum(len(_widths(len(order))) for _, order in orders)
    images = int(np.clip(MOST_MACS / max(1, macs * runs), _FEWEST_IMAGES, IMAGES))
    found: dict[int, Curve] = {}

    def tell(groups: int, part: float) -> None:
        """Report the part of the work on some groups that is done, after those whose curve is there."""
        progress((len(found) + groups * part) / len(orders))

    with task.groups.labelled.graph.on(task.device):
        for grams in fitted_gram_batches(task, [group for group, _ in orders]):
            cuts, count = {}, len(grams)
            while grams:  # a Gram matrix is freed as soon as its group is refitted
                group, of_group = grams.pop(0)
                cuts[id(group)] = _Narrowings.of(task, group, order_of[id(group)], of_group)
                tell(count, _REFITTED * len(cuts) / count)
            for done in _measure(measuring, list(cuts.values()), images):
                tell(count, _REFITTED + (1 - _REFITTED) * done / images)
            found.update((key, cut.curve()) for key, cut in cuts.items())
    ordered = [found[id(group)] for group, _ in orders]
    return processes.of_first(lambda: ordered)


def _widths(positions: int) -> list[int]:
    """Return the numbers of positions that a group is cut to, in descending order."""
    return sorted({max(1, round(width * positions)) for width in WIDTHS} - {positions}, reverse=True)


def _measure(task: Task, cuts: Sequence[_Narrowings], images: int) -> Iterator[int]:
    """Measure all widths of some groups on the images; the original runs once for each batch.

    Yields the number of images that are done.
    """
    graph = task.groups.labelled.graph
    roles = roles_of(graph)
    needed = {node for cut in cuts for node in cut.probe.needed}
    run, together, done = ValueRecorder(graph, needed), at_a_time(graph, needed), 0
    for x, _ in task.images(images):
        for some in x.split(together):
            with torch.no_grad():
                whole = select(real(run.run(some)), roles)
                for cut in cuts:
                    cut.measure(run.values, whole, roles, len(some))
            done += len(some)
            yield done


@dataclass
class _Narrowings:
    """A group at each of its widths, with the refitted layers, and the losses summed over the images so far.

    Attributes:
        probe: the network, with gates where the group is read.
        positions: n, the positions of the group.
        kept: the widths w.
        gates: for each width, float32[labels], 0 for the dropped channels.
        refits: for each width, the call of a layer -> (its weight operand, the refitted layer).
        error: float64[w], the sum of the errors of the refitted layers.
        distances: float64[w, outputs, 2], the sums of `losses.distance` over the images so far.
        diverged: float64[w], the divergence of the outputs, summed over images.
        images: the number of images so far.
    """

    probe: _Probe
    positions: int
    kept: list[int]
    gates: list[Tensor]
    refits: list[dict[Node, tuple[Node, Refit]]]
    error: NDArray[np.float64]
    distances: NDArray[np.float64]
    diverged: NDArray[np.float64] = field(init=False)
    images: int = 0

    def __post_init__(self) -> None:
        self.diverged = np.zeros(len(self.kept))

    @classmethod
    def of(cls, task: Task, group: Group, order: NDArray[np.int64], grams: list[Gram]) -> _Narrowings:
        """Refit the layers that read a group at every width.

        Args:
            task: the network and its calibration images.
            group: the group.
            order: int64[n, parts], its units from the first to keep to the first to drop.
            grams: of the layers that read the group.
        """
        owned = [unit for head in group.units if head in task.groups.owned for unit in task.groups.owned[head]]
        kept = _widths(len(order))
        alive = [torch.from_numpy(task.groups.alive(order[count:].reshape(-1))) for count in kept]
        refits: list[dict[Node, tuple[Node, Refit]]] = [{} for _ in alive]
        for gram in grams if alive else ():
            for of_width, refit in zip(refits, gram.refits(alive), strict=True):
                of_width[gram.reader.node] = gram.reader.weight, refit
        error = np.asarray([sum(refit.error for _, refit in each.values()) for each in refits])
        gates = [each.to(task.device, torch.float32) for each in alive]
        probe = _Probe(task.groups, task.device, {*group.units.tolist(), *owned})
        outputs = len(roles_of(task.groups.labelled.graph))
        return cls(probe, len(order), kept, gates, refits, error, np.zeros((len(kept), outputs, 2)))

    def measure(self, values: dict[Node, object], whole: list[Tensor], roles: Sequence[Role], images: int) -> None:
        """Add the divergence of the outputs at every width.

        Args:
            values: of the nodes that the probe needs, in the original.
            whole: the outputs of the original, one for each role.
            roles: what they say.
            images: the number of images in the batch.
        """
        for i, (gates, refits) in enumerate(zip(self.gates, self.refits, strict=True)):
            self.probe.gates, self.probe.refits = gates, refits
            outputs = select(real(self.probe.rerun(values)), roles)
            self.distances[i] += distance(outputs, whole).numpy()
            self.diverged[i] += float(divergence(outputs, whole, roles))
        self.images += images

    def curve(self) -> Curve:
        """Return the curve, measured by all processes together."""
        diverged, images = processes.total(self.diverged), processes.total(self.images)
        losses = {
            "distance": np.asarray([relative_distance(sums) for sums in processes.total(self.distances)]),
            "divergence": diverged / max(1, images),
            "error": self.error,
        }
        return Curve(self.positions, np.asarray(self.kept, np.int64), losses)


class _Probe(GatedNetwork):
    """A network with gates in which some layers are refitted.

    Attributes:
        refits: the call of a layer -> (its weight operand, the refitted layer).
    """

    refits: dict[Node, tuple[Node, Refit]]

    def run_node(self, n: Node) -> Any:
        """Run one node; a refitted layer gets its new weights and its correction of the bias."""
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
        return made + refit.bias.view(sizes)
