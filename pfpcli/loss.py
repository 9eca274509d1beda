"""Loss: one number per sample for what a network puts out, with labels or without."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.errors import UnsupportedError


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
        raise UnsupportedError(
            "the network puts out no real numbers, so it has no loss", "use --criterion pfp, which needs none"
        )
    total = losses[0]
    for each in losses[1:]:
        # what is not one row per sample (boxes of a detector) counts the same for all
        total = total + (each if len(each) == len(total) else each.mean())
    return total


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
