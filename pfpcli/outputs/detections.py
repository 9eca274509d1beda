"""Detections: what a detector is sure of, and what of it another network finds again.

Decoded boxes are compared as boxes. Boxes that are offsets from anchors, or distances, cannot be decoded, because their
anchors are not known: then places are compared, and the numbers at these places.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.boxes import FORM, SAME, SURE, are_along, are_spread, kept, matched
from pfpcli.outputs.heads import Head
from pfpcli.outputs.kinds.kind import FARTHEST, TINY, Counts, Judged

#: The fewest boxes or places of all images about which something is said.
_FEWEST = 10


class DetectionTally(Counts):
    """Counts the boxes, or the places, that are found again.

    Args:
        roles: of all outputs.
        levels: the heads of one detector.

    Attributes:
        members: the numbers of the roles that it is about.
        name: of the boxes with their scores.
    """

    def __init__(self, roles: Sequence[Role], levels: Sequence[Head]) -> None:
        super().__init__()
        self._roles, self._levels = roles, levels
        self._background: int | None = None
        self.members = [number for level in levels for number in (level.boxes, *level.scores)]
        first = levels[0]
        self._boxes = roles[first.boxes].name + (f" ({len(levels)} levels)" if len(levels) > 1 else "")
        self.name = " + ".join([self._boxes, *(roles[j].name for j in first.scores)])

    def add(self, before: Sequence[Tensor], after: Sequence[Tensor]) -> None:
        """Add a batch: all outputs of the original, and of the other network."""
        scores = [self._scores(each, before) for each in (before, after)]
        boxes = [
            torch.cat([_rows(each[level.boxes], level.dim).float() for level in self._levels], 1)
            for each in (before, after)
        ]
        for i in range(len(boxes[0])):
            self._add_places(boxes[0][i], boxes[1][i], scores[0][i], scores[1][i])
            if boxes[0].shape[-1] == 4:
                self._add_boxes(boxes[0][i], boxes[1][i], scores[0][i], scores[1][i], self._are_decoded(before, i))

    def _add_places(self, whole: Tensor, now: Tensor, scores: Tensor, others: Tensor) -> None:
        """Count the sure places of an image, and add up the numbers there."""
        (best, classes), (found, again) = scores.max(1), others.max(1)
        sure, sure_again = best >= SURE, found >= SURE
        self.count("places", int(sure.sum()))
        self.count("places found", int((sure & sure_again & (classes == again)).sum()))
        self.count("further places", int((sure_again & ~sure).sum()))
        self.count("square", float(whole[sure].double().square().sum()))
        self.count("off", float((now[sure].double() - whole[sure].double()).square().sum().nan_to_num(FARTHEST)))

    def _add_boxes(self, whole: Tensor, now: Tensor, scores: Tensor, others: Tensor, is_decoded: bool) -> None:
        """Count the sure boxes of an image."""
        first, second = kept(whole, scores), kept(now, others)
        self.count("boxes", len(first[1]))
        self.count("decoded", (first[2] and is_decoded) * len(first[1]))
        found = matched(first, second)
        self.count("boxes found", found)
        self.count("further boxes", len(second[1]) - found)

    def _are_decoded(self, outputs: Sequence[Tensor], image: int) -> bool:
        """Whether the boxes of an image lie at their places on all levels."""
        for level in self._levels:
            x = outputs[level.boxes][image].movedim(level.dim - 1, -1)
            if x.dim() == 4 and level.dim == 4:  # cells before anchors: [H, W, A, 4]
                x = x.movedim(2, 0)
            if not (are_spread(x) if x.dim() == 2 else are_along(x)):
                return False
        return True

    def _scores(self, outputs: Sequence[Tensor], of: Sequence[Tensor]) -> Tensor:
        """The score of each class at each place: float[N, A, classes].

        It is the geometric mean of what scores the place: of a class, and of an object or a centre.
        """
        levels = []
        for level in self._levels:
            each = [self._probabilities(outputs[j], of[j], j, level) for j in level.scores]
            product = each[0]
            for other in each[1:]:
                product = product * other
            levels.append(product.clamp_min(0) ** (1 / len(each)))
        scores = torch.cat(levels, 1)
        alone = self._levels[0].scores
        if len(alone) > 1 or self._roles[alone[0]].kind == "sigmoid":
            return scores
        if self._background is None:  # the class of most places of the original, which is asked first
            self._background = int(scores.argmax(-1).flatten().mode().values)
        return scores[..., [i for i in range(scores.shape[-1]) if i != self._background]]

    def _probabilities(self, x: Tensor, of: Tensor, number: int, level: Head) -> Tensor:
        kind, rows = self._roles[number].kind, _rows(x, level.dim).float()
        if kind == "logits":
            return rows.softmax(-1)
        is_before_sigmoid = kind == "sigmoid" and not (of.min() >= 0 and of.max() <= 1)
        return rows.sigmoid() if is_before_sigmoid else rows

    def judged(self) -> list[tuple[str, Judged]]:
        """Return (name, share found again) of the boxes, or of the places with the numbers there; none of too few."""
        boxes, places = self.sums.get("boxes", 0.0), self.sums.get("places", 0.0)
        if boxes and self.sums["decoded"] >= FORM * boxes:
            meaning = f"boxes of the original (score ≥ {SURE:g}) found again (IoU ≥ {SAME:g})"
            more = {"boxes": boxes, "further boxes": self.sums["further boxes"]}
            found = Judged("boxes", meaning, 1.0, self.sums["boxes found"] / boxes, more, 0.0)
            return [(self.name, found)] if boxes >= _FEWEST else []
        if places < _FEWEST:
            return []
        meaning = f"places of the original (score ≥ {SURE:g}) found again, with their class; boxes are not decoded"
        more = {"places": places, "further places": self.sums["further places"]}
        again = Judged("places", meaning, 1.0, self.sums["places found"] / places, more, 0.0)
        apart = min(FARTHEST, (self.sums["off"] / max(TINY, self.sums["square"])) ** 0.5)
        meaning = "1 − relative L2 distance of the boxes' numbers at these places"
        there = Judged("similarity", meaning, 1.0, max(0.0, 1 - apart), {}, apart)
        return [(self.name, again), (f"{self._boxes}, there", there)]


def _rows(x: Tensor, dim: int) -> Tensor:
    """The numbers of each place: float[N, A, numbers]."""
    return x.movedim(dim, -1).flatten(1, -2)
