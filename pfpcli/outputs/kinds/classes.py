"""Logits and probabilities: scores of classes that exclude each other, for an image, a pixel or a step of a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.kind import TINY, Judged, Kind, Labels, Tally, relative

#: The temperature of the divergence of a distillation.
TEMPERATURE = 4.0
#: The score of a class that a network rules out.
_RULED_OUT = -1e30
#: With at least this many classes, the original's class among the best five is measured too.
_TOP = 10
#: A row of steps is a text if there are at least this many classes.
_CHARACTERS = 20


class Logits(Kind):
    """Scores of classes before a softmax."""

    def scores(self, output: Tensor) -> Tensor:
        """The scores whose softmax are the probabilities."""
        return output

    def own_loss(self, output: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return the cross-entropy to the labels, if they fit, or to the own decisions: the mean over places."""
        rows = len(output)
        scores = _first(self.scores(output), axis)
        is_known = labels is not None and fit(scores, labels)
        target = torch.from_numpy(labels).to(output.device) if is_known else scores.argmax(1)
        return F.cross_entropy(scores, target, reduction="none").reshape(rows, -1).mean(1)

    def divergence(self, output: Tensor, whole: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return the Kullback-Leibler divergence of the decisions, averaged over places, summed over samples.

        Where labels fit, return the cross-entropy to them.
        """
        output, whole = _first(self.scores(output), axis), _first(self.scores(whole), axis)
        if labels is not None and fit(output, labels):
            return F.cross_entropy(output, torch.from_numpy(labels).to(output.device), reduction="sum")
        # a class that the original rules out (-inf) has no share in the divergence
        finite = whole.isfinite()
        output, whole = (torch.where(finite, each, _RULED_OUT) for each in (output, whole))
        target = F.log_softmax(whole, 1)
        # torch.func.vmap cannot batch torch's kl_div
        each = (target.exp() * (target - F.log_softmax(output, 1))).sum(1)
        return each.mean() * len(whole)

    def likely(self, output: Tensor, axis: int | None, k: int) -> Tensor | None:
        """Return the cross-entropy to the k-th most probable decision, times the root of its probability."""
        scores = _first(self.scores(output), axis)
        if k >= scores.shape[1]:
            return None
        rows = scores.movedim(1, -1).flatten(0, -2)
        likely, decision = rows.detach().softmax(1).topk(k + 1, dim=1)
        each = F.cross_entropy(rows, decision[:, k], reduction="none") * likely[:, k].sqrt()
        # a sum of independent gradients grows with the root of their number
        total: Tensor = each.sum() / (len(rows) / len(output)) ** 0.5
        return total

    def training(self, found: Tensor, wanted: Tensor, axis: int | None) -> Tensor:
        """Return T² KL(softmax(y / T) || softmax(ŷ / T)), averaged over samples and places, and the relative distance.

        Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015.
        """
        here, there = (_allowed(self.scores(output.float()), wanted) for output in (found, wanted))
        return softened(here, there, 1 if axis is None else axis) + relative(found, wanted)

    def tally(self, role: Role) -> Tally:
        """Return an empty tally."""
        return Decisions(role)


class Probabilities(Logits):
    """Probabilities of classes: a softmax is in the network already."""

    def scores(self, output: Tensor) -> Tensor:
        """The logarithms of the probabilities."""
        return output.clamp_min(TINY**2).log()


def softened(found: Tensor, wanted: Tensor, axis: int = 1) -> Tensor:
    """Return T² KL of two networks' decisions, averaged over samples and places: float[].

    Args:
        found: scores of the network that is trained.
        wanted: scores of the one that teaches, in the same shape.
        axis: the dimension of the classes.
    """
    here, there = (F.log_softmax(output.float() / TEMPERATURE, axis) for output in (found, wanted))
    return TEMPERATURE**2 * F.kl_div(here, there, reduction="none", log_target=True).sum(axis).mean()


def _allowed(scores: Tensor, wanted: Tensor) -> Tensor:
    """The scores with a low number where the original rules a class out."""
    return torch.where(wanted.isfinite(), scores, _RULED_OUT)


def _first(output: Tensor, axis: int | None) -> Tensor:
    """An output with its classes in dimension 1."""
    return output if axis in (None, 1) else output.movedim(axis, 1)


def fit(output: Tensor, labels: Labels) -> bool:
    """Return whether class labels fit an output: float[N, classes], one label for each row, a class for each label."""
    if labels is None or labels.ndim != 1 or output.dim() != 2 or len(labels) != len(output):
        return False
    return bool(labels.min() >= 0 and labels.max() < output.shape[1])


class Decisions(Tally):
    """How often the best class is the original's, and the label's."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.classes: int | None = None
        self.decided: tuple[set[int], set[int]] = (set(), set())
        self._overlaps: NDArray[np.int64] | None = None
        self._truth: list[NDArray[np.int64] | None] = [None, None]

    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Count the decisions of a batch."""
        before, after = _first(before, self.role.axis), _first(after, self.role.axis)
        first, second = before.argmax(1), after.argmax(1)
        self.count("decisions", first.numel())
        self.count("same", int((first == second).sum()))
        if before.shape[1] >= _TOP:
            best = after.topk(5, dim=1).indices
            self.count("top5", int((best == first.unsqueeze(1)).sum()))
        if before.dim() == 2:
            self.classes = before.shape[1]
            for found, each in zip(self.decided, (first, second), strict=True):
                found.update(each.tolist())
            self._add_labels(after, first, second, labels, fit(before, labels))
        elif before.dim() == 3 and before.shape[1] >= _CHARACTERS:
            self._add_texts(first.tolist(), second.tolist(), before.shape[1])
        elif before.dim() >= 4:
            self._overlaps = _added(self._overlaps, first, second, before.shape[1])
            if labels is not None and labels.ndim == 3:
                truth = resized(labels, tuple(first.shape[1:])).flatten()
                known = truth < before.shape[1]  # 255 and the like mark pixels without a class
                for i, each in enumerate((first, second)):
                    self._truth[i] = _added(self._truth[i], truth[known], each.flatten()[known], before.shape[1])

    def _add_labels(self, after: Tensor, first: Tensor, second: Tensor, labels: Labels, is_fit: bool) -> None:
        if labels is None or not is_fit:
            self.count("unfit", len(first))
            return
        truth = torch.from_numpy(labels)
        self.count("labelled", len(truth))
        self.count("right before", int((first == truth).sum()))
        self.count("right after", int((second == truth).sum()))
        if after.shape[1] >= _TOP:
            self.count("right top5", int((after.topk(5, dim=1).indices == truth.unsqueeze(1)).sum()))

    def _add_texts(self, before: list[list[int]], after: list[list[int]], classes: int) -> None:
        blank = (
            0 if sum(row.count(0) for row in before) >= sum(row.count(classes - 1) for row in before) else classes - 1
        )
        for a, b in zip(before, after, strict=True):
            whole, now = collapsed(a, blank), collapsed(b, blank)
            self.count("characters", max(len(whole), len(now)))
            self.count("edits", edits(whole, now))

    def counted(self) -> dict[str, Any]:
        """Return the sums so far, with those of the pixels of each class."""
        maps = {"overlaps": self._overlaps, "truth before": self._truth[0], "truth after": self._truth[1]}
        return {**super().counted(), **{name: pixels.copy() for name, pixels in maps.items() if pixels is not None}}

    def recount(self, counted: dict[str, Any]) -> None:
        """Take other sums."""
        sums = dict(counted)
        self._overlaps, *self._truth = (sums.pop(name, None) for name in ("overlaps", "truth before", "truth after"))
        super().recount(sums)

    def gather(self) -> None:
        """Combine the counts of all processes."""
        super().gather()
        self.classes = max((each for each in processes.gathered(self.classes) if each is not None), default=None)
        gathered = zip(*processes.gathered(self.decided), strict=True)
        self.decided = tuple(set().union(*found) for found in gathered)  # type: ignore[assignment]
        self._overlaps, *self._truth = (_total(each) for each in (self._overlaps, *self._truth))

    @property
    def agreement(self) -> float:
        """The fraction of decisions that are the original's."""
        return self.sums.get("same", 0.0) / max(1.0, self.sums.get("decisions", 0.0))

    def judged(self) -> Judged:
        """Return the accuracy, the characters that are right, or the agreement."""
        sums, measures = self.sums, {}
        if "top5" in sums:
            measures["in the best 5"] = sums["top5"] / sums["decisions"]
        if self._overlaps is not None:
            measures["mean IoU with the original's"] = mean_iou(self._overlaps)
        if sums.get("labelled") and not sums.get("unfit"):
            n = sums["labelled"]
            measures = {"agreement": self.agreement, **measures}
            if "right top5" in sums:
                measures["top-5 accuracy"] = sums["right top5"] / n
            return Judged(
                "accuracy", "top-1", sums["right before"] / n, sums["right after"] / n, measures, self.distance
            )
        before, after = self._truth
        if before is not None and after is not None:
            measures = {"agreement": self.agreement, **measures}
            measures["pixels right"] = float(after[2].sum() / after[0].sum())
            meaning = "mean IoU with the masks"
            return Judged("mIoU", meaning, mean_iou(before), mean_iou(after), measures, self.distance)
        if sums.get("characters"):
            right = max(0.0, 1 - sums["edits"] / sums["characters"])
            measures = {"agreement of steps": self.agreement}
            meaning = "characters of the text as the original reads it (1 − edit distance)"
            return Judged("characters", meaning, 1.0, right, measures, self.distance)
        meaning = "top-1 same as the original's" if self.classes else "best class same as the original's, all places"
        return Judged("agreement", meaning, 1.0, self.agreement, measures, self.distance)


def _added(sums: NDArray[np.int64] | None, a: Tensor, b: Tensor, classes: int) -> NDArray[np.int64]:
    """Sums with some more pixels: int64[3, classes], how often a, b and both of them are of a class."""
    found = np.stack([np.bincount(x.numpy().ravel(), minlength=classes) for x in (a, b, a[a == b])])
    return found if sums is None else sums + found


def _total(sums: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """The sums of all processes; None if none has any."""
    found = [each for each in processes.gathered(sums) if each is not None]
    return sum(found[1:], start=found[0]) if found else None


def mean_iou(sums: NDArray[np.int64]) -> float:
    """Return the mean intersection over union of the classes that occur in the first of two maps.

    Args:
        sums: int64[3, classes], the pixels of the first map, of the second, and of both.
    """
    a, b, both = sums
    there = a > 0
    return float((both[there] / (a + b - both)[there]).mean()) if there.any() else 1.0


def resized(masks: NDArray[np.int64], size: tuple[int, ...]) -> Tensor:
    """Return masks in the size of an output, the nearest pixel each: int64[N, H, W] -> int64[N, *size]."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, masks.shape[1:], strict=True))
    return torch.from_numpy(np.ascontiguousarray(masks[:, rows][:, :, columns]))


def collapsed(steps: list[int], blank: int) -> list[int]:
    """Return the characters that steps spell: each run of one class counts once, and the blank is none (CTC)."""
    return [each for i, each in enumerate(steps) if each != blank and (not i or steps[i - 1] != each)]


def edits(a: list[int], b: list[int]) -> int:
    """Return the smallest number of insertions, deletions and replacements between two texts (Levenshtein)."""
    other, place = np.asarray(b), np.arange(len(b) + 1)
    row = place  # the edits from no character of a to each beginning of b
    for i, x in enumerate(a, 1):
        kept_or_deleted = np.minimum(row[:-1] + (other != x), row[1:] + 1)
        # an insertion costs 1 for each place that it goes on
        row = np.minimum.accumulate(np.r_[i, kept_or_deleted] - place) + place
    return int(row[-1])
