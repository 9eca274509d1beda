"""Quality: accuracy, agreement or similarity of networks on held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli import processes
from pfpcli.activations.losses import fits
from pfpcli.graph.graph import Graph
from pfpcli.records.parts import Quality

#: A distance is never larger than this, even if the outputs are not finite: records hold finite numbers.
FARTHEST = 1e9


def compare(
    before: Graph,
    after: Graph,
    batches: Iterable[tuple[Tensor, NDArray[np.int64] | None]],
    source: str,
    device: torch.device | str = "cpu",
) -> Quality:
    """Compare one network with the original on images; arguments as in `compare_all`."""
    return compare_all(before, [after], batches, source, device)[0]


def compare_all(
    before: Graph,
    after: Sequence[Graph],
    batches: Iterable[tuple[Tensor, NDArray[np.int64] | None]],
    source: str,
    device: torch.device | str = "cpu",
) -> list[Quality]:
    """Compare networks with the original on images.

    The first output of floating-point numbers counts. The metric depends on it:

    - accuracy, if each image has one vector of scores, and a class label for which the vector has a score
    - agreement, if there are no labels: the fraction of decisions that are the same; a map has one for each position
    - similarity, if the output has no classes: 1 - |after - before| / |before|

    A network that was traced only up to an op that picks among its outputs has decided nothing: the metric is the
    similarity of all its outputs.

    Args:
        before: the original.
        after: the cut networks.
        batches: (float[N, ...], class labels int64[N] or None).
        source: the name of the images in the report.
        device: where to compute.
    """
    tallies = [_Tally() for _ in after]
    with ExitStack() as there, torch.no_grad():
        for graph in (before, *after):
            there.enter_context(graph.on(device))
        for images, labels in batches:
            if not processes.is_mine(images):
                continue
            x = images.to(device)
            whole = before.module(x)
            for graph, tally in zip(after, tallies, strict=True):
                if before.is_undecided:
                    tally.add_undecided(len(x), _all(whole).cpu(), _all(graph.module(x)).cpu())
                else:
                    tally.add(_first(whole).cpu(), _first(graph.module(x)).cpu(), labels)
    return [tally.quality(source) for tally in tallies]


def likeness(quality: Quality) -> tuple[str, float]:
    """Return how alike two networks are, regardless of class labels: ("agreement" or "similarity", 0 to 1)."""
    if quality.agreement is not None:
        return "agreement", quality.agreement
    return "similarity", 1 - quality.distance


def standard_error(fraction: float, count: int) -> float:
    """Return the standard error of a fraction of samples (Agresti and Coull's, which is not 0 at 0 and 1).

    Args:
        fraction: of the samples, 0 to 1.
        count: the number of samples.
    """
    centre = min(1.0, max(0.0, (count * fraction + 2) / (count + 4)))
    return math.sqrt(centre * (1 - centre) / (count + 4))


def _first(outputs: object) -> Tensor:
    return next(x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point())


def _all(outputs: object) -> Tensor:
    """Return all floating-point outputs as one vector: float[n]."""
    return torch.cat([x.flatten() for x in tree_leaves(outputs) if x.is_floating_point()])


class _Tally:
    """Counts and sums that grow batch by batch."""

    def __init__(self) -> None:
        self.images = self.decisions = self.same = self.labelled = self.unfit = self.right_before = self.right_after = 0
        self.squares = self.squared_error = 0.0
        self._classes: int | None = None
        self._decided: tuple[set[int], set[int]] = (set(), set())

    def add_undecided(self, images: int, before: Tensor, after: Tensor) -> None:
        finite = before.isfinite()  # a mask of -inf is no number to compare
        whole, now = before[finite].double(), after[finite].double()
        self.images += images
        self.squares += float(whole.square().sum())
        self.squared_error += float((now - whole).square().sum().nan_to_num(nan=math.inf))

    def add(self, before: Tensor, after: Tensor, labels: NDArray[np.int64] | None) -> None:
        self.add_undecided(len(before), before, after)
        if before.dim() < 2 or before.shape[1] < 2:
            return
        first, second = before.argmax(1), after.argmax(1)
        self.decisions += first.numel()
        self.same += int((first == second).sum())
        if before.dim() == 2:
            self._classes = before.shape[1]
            for found, each in zip(self._decided, (first, second), strict=True):
                found.update(each.tolist())
        if not fits(before, labels):
            self.unfit += len(before)
        elif labels is not None:
            truth = torch.from_numpy(labels)
            self.labelled += len(truth)
            self.right_before += int((first == truth).sum())
            self.right_after += int((second == truth).sum())

    def quality(self, source: str) -> Quality:
        """Return the quality, from the counts of all processes."""
        for name, value in list(vars(self).items()):
            if not name.startswith("_"):
                setattr(self, name, processes.total(value))
        classes = max((each for each in processes.gathered(self._classes) if each is not None), default=None)
        decided = [set().union(*found) for found in zip(*processes.gathered(self._decided), strict=True)]
        agreement = self.same / self.decisions if self.decisions else None
        distance = (self.squared_error / self.squares) ** 0.5 if self.squares else float(self.squared_error > 0)
        distance = min(distance, FARTHEST)
        decisions = (classes, None if classes is None else (len(decided[0]), len(decided[1])))
        seen = (agreement, self.images, source, distance, *decisions)
        if self.labelled and not self.unfit:
            n = self.labelled
            return Quality("accuracy", self.right_before / n, self.right_after / n, *seen)
        if agreement is not None:
            return Quality("agreement", 1.0, agreement, *seen)
        return Quality("similarity", 1.0, 1 - distance, *seen)
