"""Losses: the loss of each sample's outputs, with or without class labels, and the divergence of two networks.

An output "decides" if it has classes: float[N, classes, ...].
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.errors import UnsupportedError

#: Distances are relative to the size of the output, or to this where the output is smaller.
_TINY = 1e-6
#: The score of a class that a network rules out.
_RULED_OUT = -1e30


def per_sample_loss(outputs: object, labels: NDArray[np.int64] | None) -> Tensor:
    """Return the loss of each sample, summed over the outputs: float[N].

    The loss of an output that decides is the cross-entropy to the labels, if they fit, or to the network's own
    decisions, averaged over positions. The loss of any other output is half its mean square.

    Args:
        outputs: the result of the network, any nesting of tensors.
        labels: int64[N], or None.

    Raises:
        UnsupportedError: no output is a tensor of floating-point numbers.
    """
    losses = [_loss(x, labels) for x in real(outputs)]
    if not losses:
        raise _no_loss()
    total = losses[0]
    for each in losses[1:]:
        # an output without one row per sample (boxes of a detector) counts the same for all samples
        total = total + (each if len(each) == len(total) else each.mean())
    return total


def likely_losses(outputs: list[Tensor], most: int) -> Iterator[Tensor]:
    """Yield losses whose squared gradients sum up to the diagonal of the Fisher matrix.

    There is one loss for each of the k most probable decisions: the cross-entropy to the decision, times the root of
    its probability, summed over samples and outputs. The loss of an output that does not decide is its product with
    noise, the same for all samples, relative to the size of the output: its Fisher matrix is that of a squared relative
    distance.

    Args:
        outputs: float[N, classes, ...] each, or any other shape.
        most: k, the number of decisions.
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
    """Return how far outputs are from those of the original, summed over samples and outputs: float64[].

    This is the cross-entropy to the labels, if they fit; otherwise the Kullback-Leibler divergence of the decisions,
    averaged over positions. For an output that does not decide it is the squared distance, relative to its size.

    Args:
        outputs: of a masked or cut network.
        whole: of the original, in the same shapes.
        labels: int64[N], or None.
    """
    each = (_divergence(*pair, labels).double() for pair in zip(outputs, whole, strict=True))
    return sum(each, start=torch.zeros((), dtype=torch.float64))


def distance(outputs: list[Tensor], whole: list[Tensor]) -> Tensor:
    """Return the squared distances of outputs from those of the original, and the spread of the latter.

    Their quotient is 0 for equal outputs and 1 for outputs that tell no more than a constant; it has no upper limit.
    Numbers that are not finite in the original (a mask of -inf) do not count. Where the other output alone is not
    finite, the distance is infinite.

    Args:
        outputs: of a masked or cut network.
        whole: of the original, in the same shapes.

    Returns:
        float64[outputs, 2], sums over the samples: the squared distance, and the squared distance of the original's
        output from its mean in the batch.
    """
    # squares of large numbers overflow in float32
    pairs = (_finite(a.double(), b.double()) for a, b in zip(outputs, whole, strict=True))
    sums = [[float((a - b).square().sum()), float((b - b.mean()).square().sum()) if len(b) else 0.0] for a, b in pairs]
    return torch.tensor(sums, dtype=torch.float64).reshape(-1, 2).nan_to_num(nan=math.inf, posinf=math.inf)


def _finite(output: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Return two outputs where the second one is finite; both as they are if it is finite everywhere."""
    finite = whole.isfinite()
    return (output, whole) if finite.all() else (output[finite], whole[finite])


def relative_distance(sums: NDArray[np.float64]) -> float:
    """Return the distance that the sums of `distance` over all batches stand for, added up over the outputs.

    Args:
        sums: float64[outputs, 2].
    """
    return float((sums[:, 0] / np.maximum(sums[:, 1], _TINY)).sum())


def _divergence(output: Tensor, whole: Tensor, labels: NDArray[np.int64] | None) -> Tensor:
    if fits(output, labels):
        return per_sample_loss(output, labels).sum()
    if not decides(output):
        return (output - whole).square().sum() / whole.square().sum().clamp(min=_TINY) * len(whole)
    # a class that the original rules out (-inf) has no share in the divergence
    finite = whole.isfinite()
    output, whole = (torch.where(finite, each, _RULED_OUT) for each in (output, whole))
    target = F.log_softmax(whole, 1)
    # torch.func.vmap cannot batch torch's kl_div
    each = (target.exp() * (target - F.log_softmax(output, 1))).sum(1)
    return each.mean() * len(whole)


def _no_loss() -> UnsupportedError:
    return UnsupportedError(
        "the network puts out no real numbers, so it has no loss", "use --criterion pfp, which needs none"
    )


def real(outputs: object) -> list[Tensor]:
    """Return the tensors of floating-point numbers among the outputs of a network."""
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()]


def decides(output: Tensor) -> bool:
    """Whether an output has classes: float[N, classes, ...]."""
    return output.dim() > 1 and output.shape[1] > 1


def fits(output: Tensor, labels: NDArray[np.int64] | None) -> bool:
    """Whether class labels fit an output: it decides once per sample, and it has a class for each label."""
    if labels is None or output.dim() != 2 or len(labels) != len(output):
        return False
    return bool(labels.min() >= 0 and labels.max() < output.shape[1])


def _loss(output: Tensor, labels: NDArray[np.int64] | None) -> Tensor:
    rows = len(output) if output.dim() else 1
    if not decides(output):
        return output.reshape(rows, -1).square().mean(1) / 2
    known = labels is not None and fits(output, labels)
    target = torch.from_numpy(labels).to(output.device) if known else output.argmax(1)
    return F.cross_entropy(output, target, reduction="none").reshape(rows, -1).mean(1)
