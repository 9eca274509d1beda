"""Quality: how well a network does what the original does, on held-out images, output by output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.graph.role import Role
from pfpcli.outputs.changes import Changes
from pfpcli.outputs.detections import DetectionTally
from pfpcli.outputs.heads import detectors
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.kinds.classes import Decisions
from pfpcli.outputs.kinds.kind import Counts, Judged
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.roles import roles_of, run_network, shape
from pfpcli.records.parts import OutputQuality, Quality

#: A run is worse if the quality of an output falls by this much or more.
LOSS = 0.05


class Network(Protocol):
    """A network that is compared with the original: a graph, or an ONNX file in onnxruntime."""

    def __call__(self, images: Tensor, /) -> Any:
        """Return the outputs of a batch, float[N, ...]."""

    def on(self, device: torch.device | str) -> AbstractContextManager[None]:
        """Move the network to a device within a block."""


def compare(
    before: Graph,
    after: Network,
    batches: Iterable[tuple[Tensor, NDArray[np.int64] | None]],
    source: str,
    device: torch.device | str = "cpu",
    changes: Changes | None = None,
    known: KnownOutputs | None = None,
) -> Quality:
    """Compare one network with the original on images; arguments as in `compare_all`."""
    return compare_all(before, [after], batches, source, device, changes, known)[0]


def compare_all(
    before: Graph,
    after: Sequence[Network],
    batches: Iterable[tuple[Tensor, NDArray[np.int64] | None]],
    source: str,
    device: torch.device | str = "cpu",
    changes: Changes | None = None,
    known: KnownOutputs | None = None,
) -> list[Quality]:
    """Compare networks with the original on images.

    Every output is compared as its role asks (`kinds`). The headline is the accuracy where labels fit, unless another
    output has fallen by `LOSS` or more; otherwise it is the output that has fallen most. Boxes with their scores count
    together, in the place of both.

    Args:
        before: the original; its roles decide.
        after: the cut networks, with the outputs of the original.
        batches: (float[N, ...], class labels int64[N] or None).
        source: the name of the images in the report.
        device: where to compute.
        changes: collects what the last of the cut networks does otherwise; None collects nothing.
        known: outputs of the original for the same batches; those that it lacks are added.
    """
    roles, known = roles_of(before), known or KnownOutputs()
    tallies = [Tallies.of(before) for _ in after]
    with ExitStack() as there, torch.no_grad():
        for each in (before, *after):
            there.enter_context(each.on(device))
        done = 0
        for i, (images, labels) in enumerate(batches):
            first, done = done, done + len(images)
            if not processes.is_mine(images):
                continue
            x = images.to(device)
            whole = [each.cpu() for each in known.of(i, partial(run_network, before, x, roles))]
            for network, tally in zip(after, tallies, strict=True):
                now = [each.cpu() for each in run_network(network, x, roles)]
                tally.add(len(x), whole, now, labels)
            if changes is not None and changes.watched is not None:
                changes.add(first, images, whole[changes.watched], now[changes.watched], labels)
    return [tally.quality(source) for tally in tallies]


def likeness(quality: Quality) -> tuple[str, float]:
    """Return how alike two networks are, regardless of class labels: (metric, 0 to 1).

    It is the agreement of a network that decides between classes with one output, and the mean over the outputs of any
    other network.
    """
    if quality.agreement is not None:
        return "agreement", quality.agreement
    if len(quality.outputs) == 1:
        return quality.outputs[0].metric, quality.outputs[0].after
    if quality.outputs:
        return "likeness", sum(each.after for each in quality.outputs) / len(quality.outputs)
    return "similarity", 1 - quality.distance


def standard_error(fraction: float, count: int) -> float:
    """Return the standard error of a fraction of samples (Agresti and Coull's, which is not 0 at 0 and 1).

    Args:
        fraction: of the samples, 0 to 1.
        count: the number of samples.
    """
    centre = min(1.0, max(0.0, (count * fraction + 2) / (count + 4)))
    return math.sqrt(centre * (1 - centre) / (count + 4))


#: What is said about a network without outputs of real numbers.
_NOTHING = OutputQuality("", "regression", None, "", "similarity", "", 1.0, 1.0, {})


class Tallies:
    """The tallies of all outputs of one network.

    Args:
        roles: what the outputs say.
        shapes: the shape of each output.
    """

    def __init__(self, roles: Sequence[Role], shapes: Sequence[Sequence[int]]) -> None:
        self._roles = roles
        # known before the first image: a process without images takes part in gathering the same counts
        self._detectors = [DetectionTally(roles, levels) for levels in detectors(roles, shapes)]
        scored = {number for each in self._detectors for number in each.members}
        # nearly all places of a detector are background: agreement or overlap of them all hides or exaggerates
        kinds = ["regression" if i in scored else role.kind for i, role in enumerate(roles)]
        self._tallies = [KINDS[kind].load().tally(role) for kind, role in zip(kinds, roles, strict=True)]
        self.images = 0

    @classmethod
    def of(cls, before: Graph) -> Tallies:
        """Return empty tallies of a network that is compared with an original; its roles decide."""
        roles = roles_of(before)
        outputs = [node for node in before.outputs if is_tensor(node) and node.meta["val"].is_floating_point()]
        return cls(roles, [shape(role, outputs[role.output]) for role in roles])

    def add(self, images: int, whole: list[Tensor], now: list[Tensor], labels: NDArray[Any] | None) -> None:
        """Add a batch: the outputs of the original and of the other network, one for each role."""
        self.images += images
        for tally, a, b in zip(self._tallies, whole, now, strict=True):
            tally.add(a, b, labels)
        for each in self._detectors:
            each.add(whole, now)

    def counted(self) -> list[dict[str, Any]]:
        """Return the sums of all outputs so far, see `Counts.counted`."""
        return [each.counted() for each in self._all]

    def recount(self, counted: Sequence[dict[str, Any]]) -> None:
        """Take other sums for all outputs."""
        for each, sums in zip(self._all, counted, strict=True):
            each.recount(sums)

    @property
    def _all(self) -> list[Counts]:
        return [*self._tallies, *self._detectors]

    def quality(self, source: str) -> Quality:
        """Return the quality, from the counts of all processes."""
        self.images = processes.total(self.images)
        for each in self._all:
            each.gather()
        return self.judged(source)

    def judged(self, source: str) -> Quality:
        """Return the quality, from the counts of this process."""
        judged = [tally.judged() for tally in self._tallies]
        rows = [_row(role, each) for role, each in zip(self._roles, judged, strict=True)]
        counted = dict(enumerate(rows))
        together = []
        for each in self._detectors:
            found = each.judged()
            together += [OutputQuality(name, "boxes", None, "boxes with scores", *_values(one)) for name, one in found]
            for number in each.members if found else ():
                counted.pop(number, None)
        candidates = sorted([*together, *counted.values()], key=_fall, reverse=True)
        parts = sorted((row for i, row in enumerate(rows) if i not in counted), key=_fall, reverse=True)
        labelled = next((row for row in candidates if row.metric == "accuracy"), None)
        headline = candidates[0] if candidates else _NOTHING
        if labelled is not None and headline.before - headline.after < LOSS:
            headline = labelled
        decisions = [each for each in self._tallies if isinstance(each, Decisions)]
        only = decisions[0] if len(self._tallies) == len(decisions) == 1 else None
        return Quality(
            headline.metric,
            headline.before,
            headline.after,
            only.agreement if only is not None and only.sums.get("decisions") else None,
            self.images,
            source,
            max((each.distance for each in judged), default=0.0),
            None if only is None else only.classes,
            None if only is None or only.classes is None else (len(only.decided[0]), len(only.decided[1])),
            headline.meaning,
            headline.name,
            [*candidates, *parts],
        )


def _fall(row: OutputQuality) -> float:
    return row.before - row.after


def _row(role: Role, judged: Judged) -> OutputQuality:
    return OutputQuality(role.name, role.kind, role.axis, role.why, *_values(judged))


def _values(judged: Judged) -> tuple[str, str, float, float, dict[str, float]]:
    measures = (
        {"relative L2": judged.distance, **judged.measures}
        if judged.metric not in ("boxes", "places")
        else judged.measures
    )
    return judged.metric, judged.meaning, judged.before, judged.after, measures
