"""Loss: one number per sample for what a network puts out, with labels or without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.errors import UnsupportedError

#: Distances are relative to at least this much.
_TINY = 1e-6


def per_sample_loss(outputs: object, labels: NDArray[np.int64] | None) -> Tensor:
    """The loss of each sample, summed over the outputs: float[N].

    Outputs that decide (float[N, classes, ...]): cross-entropy to the labels where they fit, else to the network's own
    decisions, averaged over positions. Outputs that decide nothing: half the mean square.

    Args:
        outputs: what the network returns, any nesting of tensors.
        labels: int64[N], or None.

    Raises:
        UnsupportedError: there are no real numbers among the outputs.
    """
    losses = [_loss(x, labels) for x in real(outputs)]
    if not losses:
        raise _no_loss()
    total = losses[0]
    for each in losses[1:]:
        # what is not one row per sample (boxes of a detector) counts the same for all
        total = total + (each if len(each) == len(total) else each.mean())
    return total


def likely_losses(outputs: list[Tensor], most: int) -> Iterator[Tensor]:
    """Losses whose squared gradients sum up to the diagonal of the Fisher matrix, each summed over samples and outputs.

    One for each of the most probable decisions k: the cross-entropy to it, times the root of its probability. Of an
    output that decides nothing, its product with noise that is the same for all samples, in units of its size: then it
    is that of a squared relative distance.

    Args:
        outputs: float[N, classes, ...] each, or anything.
        most: decisions that count.
    """
    if not outputs:
        raise _no_loss()
    for k in range(most if any(map(decides, outputs)) else 1):
        total = outputs[0].new_zeros(())
        for output in outputs:
            if decides(output) and k < output.shape[1]:
                rows = output.movedim(1, -1).flatten(0, -2)
                likely, decision = rows.detach().softmax(1).topk(k + 1, dim=1)
                each = F.cross_entropy(rows, decision[:, k], reduction="none") * likely[:, k].sqrt()
                # a sum of independent gradients grows with the root of their number
                total = total + each.sum() / (len(rows) / len(output)) ** 0.5
            elif not decides(output) and k == 0:
                noise = torch.randn(output.shape[1:], generator=torch.Generator().manual_seed(0)).to(output)
                size = output.detach().square().sum() / max(1, len(output))
                total = total + (output * noise).sum() / size.clamp(min=_TINY).sqrt()
        yield total


def divergence(outputs: list[Tensor], whole: list[Tensor], labels: NDArray[np.int64] | None = None) -> Tensor:
    """How far outputs are from those of the unpruned network, summed over samples and outputs: float64[].

    The cross-entropy to labels, where there are labels that fit; else the Kullback-Leibler divergence of decisions,
    averaged over positions; of outputs that decide nothing, the squared distance relative to their size.

    Args:
        outputs: of one network.
        whole: of the unpruned one, alike.
        labels: int64[N], or None.
    """
    each = (_divergence(*pair, labels).double() for pair in zip(outputs, whole, strict=True))
    return sum(each, start=torch.zeros((), dtype=torch.float64))


def _divergence(output: Tensor, whole: Tensor, labels: NDArray[np.int64] | None) -> Tensor:
    if fits(output, labels):
        return per_sample_loss(output, labels).sum()
    if not decides(output):
        return (output - whole).square().sum() / whole.square().sum().clamp(min=_TINY) * len(whole)
    target = F.log_softmax(whole, 1)
    # not torch's kl_div, which cannot be folded over a batch of masks
    each = (target.exp() * (target - F.log_softmax(output, 1))).sum(1)
    return each.mean() * len(whole)


def _no_loss() -> UnsupportedError:
    return UnsupportedError(
        "the network puts out no real numbers, so it has no loss", "use --criterion pfp, which needs none"
    )


def real(outputs: object) -> list[Tensor]:
    """The tensors of real numbers among what a network returns."""
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()]


def decides(output: Tensor) -> bool:
    """Whether an output is float[N, classes, ...]."""
    return output.dim() > 1 and output.shape[1] > 1


def fits(output: Tensor, labels: NDArray[np.int64] | None) -> bool:
    """Whether labels can be those of an output: one decision per sample, among as many classes."""
    return labels is not None and output.dim() == 2 and len(labels) == len(output) and labels.max() < output.shape[1]


def _loss(output: Tensor, labels: NDArray[np.int64] | None) -> Tensor:
    rows = len(output) if output.dim() else 1
    if not decides(output):
        return output.reshape(rows, -1).square().mean(1) / 2
    known = labels is not None and fits(output, labels)
    target = torch.from_numpy(labels).to(output.device) if known else output.argmax(1)
    return F.cross_entropy(output, target, reduction="none").reshape(rows, -1).mean(1)
