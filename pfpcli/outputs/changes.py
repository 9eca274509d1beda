"""Changes: what a network does otherwise than the original, class by class and image by image.

It is collected while the two are compared, in one pass: counts for each class, and the few images that changed most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.outputs.answers import Answer, ClassMap, OneClass, answers
from pfpcli.outputs.kinds.classes import fit, resized
from pfpcli.outputs.kinds.kind import Labels
from pfpcli.outputs.roles import roles_of, shape
from pfpcli.outputs.thumbnails import reduced
from pfpcli.records.details import Behaviour, ChangedImage, ClassCount

#: The number of images that are shown.
SHOWN = 10
#: Answers that are less far apart than this are the same.
_SAME = 1e-6


@dataclass(frozen=True)
class _Changed:
    """An image that changed: its number among the judging images, how far, the image float[C, h, w], both answers."""

    number: int
    change: float
    image: Tensor
    before: Answer
    after: Answer
    truth: int | None


class Changes:
    """Counts classes and keeps the images that changed most.

    One output is watched: the first one that puts images into classes, or else the first one whose answer is a picture,
    or else the first one.

    Args:
        graph: the original.
        names: names of the classes, in the order of the outputs; empty where they are not known.
    """

    def __init__(self, graph: Graph, names: Sequence[str] = ()) -> None:
        outputs = [node for node in graph.outputs if is_tensor(node) and node.meta["val"].is_floating_point()]
        roles = roles_of(graph)
        shapes = [shape(role, outputs[role.output]) for role in roles]
        kinds = [answers(role, size, names) for role, size in zip(roles, shapes, strict=True)]
        ranks = [0 if isinstance(each, OneClass) else 1 if each.is_picture else 2 for each in kinds]
        #: The number of the watched output among the roles; None for a network without outputs of real numbers.
        self.watched = ranks.index(min(ranks)) if ranks else None
        self._changed: list[_Changed] = []
        self._differ = 0
        self.images = 0
        if self.watched is not None:
            self._kind = kinds[self.watched]
            self._axis = self._kind.role.axis or 1 if isinstance(self._kind, OneClass | ClassMap) else None
            classes = 0 if self._axis is None else shapes[self.watched][self._axis]
            # how often a class is the truth, and how often the original and the result then find it
            self._by_label, self._by_original = (np.zeros((3, classes), np.int64) for _ in range(2))
            self._unfit = 0

    def add(self, first: int, images: Tensor, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add a batch: float[N, ...], with the watched output of the original and of the other network.

        `first` is the number of its first image among all judging images; `labels` are as in `Tally.add`.
        """
        self.images += len(images)
        known = labels if labels is not None and labels.ndim == 1 and fit(before, labels) else None
        if self._axis is not None:
            self._count(before.argmax(self._axis), after.argmax(self._axis), labels, known)
        far = self._kind.distances(before, after)
        for row in far.argsort(descending=True, stable=True)[:SHOWN].tolist():
            change = float(far[row])
            if change <= _SAME or (len(self._changed) == SHOWN and change <= self._changed[-1].change):
                break
            image = images[row].float().cpu()
            found = _Changed(
                first + row,
                change,
                reduced(image) if image.dim() == 3 else image[:0],
                self._kind.answer(before[row]),
                self._kind.answer(after[row]),
                None if known is None else int(known[row]),
            )
            self._changed = _most([*self._changed, found])

    def _count(self, before: Tensor, after: Tensor, labels: Labels, known: Labels) -> None:
        classes = self._by_label.shape[1]
        if isinstance(self._kind, OneClass):
            self._differ += int((before != after).sum())
        self._by_original += _counted(before, before, after, classes)
        if known is not None:
            self._by_label += _counted(torch.from_numpy(known), before, after, classes)
        elif labels is not None and labels.ndim == 3 and before.dim() == 3:
            self._by_label += _counted(resized(labels, tuple(before.shape[1:])), before, after, classes)
        else:
            self._unfit += len(before)

    def behaviour(self, names: Sequence[str], restored: Callable[[NDArray[np.float32]], str]) -> Behaviour | None:
        """Return what was collected, in all processes; None for a network without outputs of real numbers.

        Args:
            names: the name of each judging image; empty where it is not known which image is which.
            restored: returns a picture of an image float32[C, h, w] as the network sees it, or "".
        """
        if self.watched is None:
            return None
        self._changed = _most([each for found in processes.gathered(self._changed) for each in found])
        images, differ, unfit = (processes.total(each) for each in (self.images, self._differ, self._unfit))
        by_label, by_original = self._by_label, self._by_original
        if self._axis is not None:
            by_label, by_original = processes.total(by_label), processes.total(by_original)
        is_labelled = bool(by_label.any()) and not unfit
        kind, is_map = self._kind, isinstance(self._kind, ClassMap)
        return Behaviour(
            kind.role.name,
            kind.measure,
            "" if self._axis is None else "pixels" if is_map else "images",
            is_labelled,
            differ if isinstance(kind, OneClass) else None,
            images,
            self._classes(by_label if is_labelled else by_original),
            [self._shown(each, names, restored) for each in self._changed],
        )

    def _classes(self, counts: NDArray[np.int64]) -> list[ClassCount]:
        """Return the classes that occur, those first that lost the largest share."""
        there = np.flatnonzero(counts[0]).tolist()
        rows = [ClassCount(self._kind.name(each), *counts[:, each].tolist()) for each in there]
        return sorted(rows, key=lambda row: (row.after - row.before) / row.count)

    def _shown(
        self, found: _Changed, names: Sequence[str], restored: Callable[[NDArray[np.float32]], str]
    ) -> ChangedImage:
        change = found.change - 1 if isinstance(self._kind, OneClass) and found.change > 1 else found.change
        return ChangedImage(
            names[found.number] if names else "",
            restored(found.image.numpy()) if found.image.dim() == 3 and len(found.image) else "",
            found.before.text,
            found.after.text,
            "" if found.truth is None else self._kind.name(found.truth),
            float(f"{change:.4g}"),
            self._kind.maps(found.before, found.after),
        )


def _most(found: Sequence[_Changed]) -> list[_Changed]:
    """Return those that changed most, the first one most."""
    return sorted(found, key=lambda each: (-each.change, each.number))[:SHOWN]


def _counted(truth: Tensor, before: Tensor, after: Tensor, classes: int) -> NDArray[np.int64]:
    """Return int64[3, classes]: how often a class is the truth, and how often each network finds it there."""
    known = truth < classes  # 255 and the like mark pixels without a class
    there, first, second = (each[known].numpy() for each in (truth, before, after))
    return np.stack([np.bincount(x, minlength=classes) for x in (there, there[first == there], there[second == there])])
