"""Losses: the loss of each sample's outputs, with or without class labels, and the divergence of two networks.

The role of an output decides its loss (`kinds`). The outputs are those of the roles (`roles.select`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.errors import UnsupportedError
from pfpcli.graph.role import Role
from pfpcli.outputs.kinds import KINDS

#: Distances are relative to the size of the output, or to this where the output is smaller.
_TINY = 1e-6


def per_sample_loss(outputs: Sequence[Tensor], roles: Sequence[Role], labels: NDArray[np.int64] | None) -> Tensor:
    """Return the loss of each sample, summed over the outputs: float[N].

    Args:
        outputs: one for each role.
        roles: what they say.
        labels: int64[N], or None.

    Raises:
        UnsupportedError: no output is a tensor of floating-point numbers.
    """
    _check(roles)
    losses = [KINDS[role.kind].load().own_loss(x, role.axis, labels) for x, role in zip(outputs, roles, strict=True)]
    total = losses[0]
    for each in losses[1:]:
        # an output without one row per sample (boxes of a detector) counts the same for all samples
        total = total + (each if len(each) == len(total) else each.mean())
    return total


def likely_losses(outputs: Sequence[Tensor], roles: Sequence[Role], most: int) -> Iterator[Tensor]:
    """Yield losses whose squared gradients sum up to the diagonal of the Fisher matrix.

    Args:
        outputs: one for each role.
        roles: what they say.
        most: the largest number of losses; of classes, that of the most probable decisions.
    """
    _check(roles)
    for k in range(most):
        found = [KINDS[role.kind].load().likely(x, role.axis, k) for x, role in zip(outputs, roles, strict=True)]
        losses = [each for each in found if each is not None]
        if not losses:
            return
        yield sum(losses[1:], start=losses[0])


def divergence(
    outputs: Sequence[Tensor], whole: Sequence[Tensor], roles: Sequence[Role], labels: NDArray[np.int64] | None = None
) -> Tensor:
    """Return how far outputs are from those of the original, summed over samples and outputs: float64[].

    Args:
        outputs: of a masked or cut network, one for each role.
        whole: of the original, in the same shapes.
        roles: what they say.
        labels: int64[N], or None; they count where they fit.
    """
    each = (
        KINDS[role.kind].load().divergence(a, b, role.axis, labels).double()
        for a, b, role in zip(outputs, whole, roles, strict=True)
    )
    return sum(each, start=torch.zeros((), dtype=torch.float64))


def distance(outputs: Sequence[Tensor], whole: Sequence[Tensor]) -> Tensor:
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


def _check(roles: Sequence[Role]) -> None:
    if not roles:
        raise UnsupportedError(
            "the network puts out no real numbers, so it has no loss", "use --criterion pfp, which needs none"
        )
