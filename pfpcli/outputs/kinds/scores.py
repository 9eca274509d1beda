"""Sigmoid: independent scores or masks between 0 and 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.classes import resized
from pfpcli.outputs.kinds.kind import TINY, Judged, Kind, Labels, Tally, relative

#: A score above this is a yes.
_YES = 0.5
#: The overlap of the yeses is the metric if there are at least this many.
_FEWEST = 20


class Sigmoid(Kind):
    """Each number is a probability of its own. Numbers outside of 0 to 1 are taken for logits of a sigmoid."""

    def own_loss(self, output: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return the cross-entropy to the network's own yes and no, the mean over all numbers of a sample."""
        scores = _probabilities(output, output)
        each = F.binary_cross_entropy(scores, (scores > _YES).to(scores), reduction="none")
        return each.reshape(len(output), -1).mean(1)

    def divergence(self, output: Tensor, whole: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return the Kullback-Leibler divergence of all numbers, for each expected yes, times the samples."""
        p, q = _probabilities(whole, whole), _probabilities(output, whole)
        each = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        return each.sum() / p.sum().clamp(min=TINY) * len(whole)

    def likely(self, output: Tensor, axis: int | None, k: int) -> Tensor | None:
        """Return the logits times noise and their standard deviation: the Fisher matrix of independent scores."""
        if k:
            return None
        p = _probabilities(output, output)
        noise = torch.randn(output.shape[1:], generator=torch.Generator().manual_seed(0)).to(output)
        deviation = (p * (1 - p)).sqrt().detach()
        expected = (p.detach().sum() / max(1, len(output))).clamp(min=TINY)
        return (torch.logit(p) * noise * deviation).sum() / expected.sqrt()

    def training(self, found: Tensor, wanted: Tensor, axis: int | None) -> Tensor:
        """Return the divergence of a sample, and the relative distance of the numbers."""
        each = self.divergence(found.float(), wanted.float(), axis, None) / max(1, len(wanted))
        return each + relative(found, wanted)

    def tally(self, role: Role) -> Tally:
        """Return an empty tally."""
        return _Overlap(role)


def _probabilities(x: Tensor, whole: Tensor) -> Tensor:
    """The scores as probabilities strictly between 0 and 1; whether they are logits is told by the original's."""
    is_probability = (whole.amin() >= 0) & (whole.amax() <= 1)
    return torch.where(is_probability, x, x.sigmoid()).clamp(TINY, 1 - TINY)


class _Overlap(Tally):
    """The overlap (intersection over union) of what both networks say yes to."""

    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add the overlaps of a batch."""
        a, b = _probabilities(before, before).double(), _probabilities(after, before).double()
        self.count("both", float(((a > _YES) & (b > _YES)).sum()))
        self.count("either", float(((a > _YES) | (b > _YES)).sum()))
        self.count("yes", float((a > _YES).sum()))
        if labels is not None and labels.ndim == 3 and a.dim() == 4 and a.shape[1] == 1:
            truth = resized(labels, tuple(a.shape[2:])).unsqueeze(1) > 0
            for name, found in (("before", a > _YES), ("after", b > _YES)):
                self.count(f"{name} both", float((truth & found).sum()))
                self.count(f"{name} either", float((truth | found).sum()))
        self.count("low", float(torch.minimum(a, b).sum()))
        self.count("high", float(torch.maximum(a, b).sum()))

    def judged(self) -> Judged:
        """Return the overlap of the yeses; of the scores themselves, where there is hardly a yes."""
        soft = self.sums.get("low", 0.0) / max(TINY, self.sums.get("high", 0.0))
        if self.sums.get("before either"):
            was, now = (self.sums[f"{name} both"] / self.sums[f"{name} either"] for name in ("before", "after"))
            return Judged("mIoU", "IoU with the masks", was, now, {"overlap of scores": soft}, self.distance)
        if self.sums.get("yes", 0.0) < _FEWEST:
            meaning = "overlap of the scores with the original's (sum of minima over sum of maxima)"
            return Judged("overlap", meaning, 1.0, soft, {}, self.distance)
        hard = self.sums["both"] / max(1.0, self.sums["either"])
        meaning = f"overlap of the scores above {_YES:g} with the original's (intersection over union)"
        return Judged("overlap", meaning, 1.0, hard, {"overlap of scores": soft}, self.distance)
