"""Provable Filter Pruning: the sensitivity of a channel, and how many channels an error bound keeps.

    s_j = max over inputs x in S, outputs i, patches p, signs of   sum_r w_ijr a_jrp / sum_k,r w_ikr a_krp

    symbol   here              meaning
    S        scoring images
    a        Columns.x         the input of the layer: channel j at kernel position r of patch p
    w        Columns.weight    the weights of the layer, its positive and its negative part separately
    z        total             the denominator
    s_j      sensitivity       the largest share of channel j in any output of the layer
    q_j      q                 s_j over the sum of all s
    m(eps)   sample_count      draws that keep every output within a factor 1 +- eps with probability 1 - delta
    delta    DELTA             probability of failure

Sources: Liebenwein et al., Provable Filter Pruning for Efficient Neural Networks, ICLR 2020, and the authors' code
(torchprune), which the constants and the handling of signs and small denominators follow.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.channels.rules import Columns
from pfpcli.scoring.kernel import largest_shares

#: A share with a denominator up to this counts as 0 (float32 epsilon, as in torchprune).
EPSILON = 1.1920929e-07
#: Probability that a bound fails, for the sample counts and for the number of scoring images.
DELTA = 1e-16
#: Constants of the sample counts.
K = 3
C = 3
#: Smaller shares count as this much. Channels that are always 0 are then dropped first, but a budget that keeps
#: everything keeps them.
FLOOR = 1e-30

#: The most numbers in one block of shares, by device: on a CPU it should fit into the cache.
_BLOCK = {"cpu": 1 << 20}
_BLOCK_ELSEWHERE = 1 << 25


def sensitivity(columns: Columns, reduce: str = "sum", known: Tensor | None = None) -> Tensor:
    """Return the largest share of each channel in any output: float[G, J], between 0 and 1.

    Inputs and weights of mixed sign are split: the positive and the negative part of an input count as two inputs, and
    those of a layer as two layers. So every share is a quotient of non-negative numbers. A share whose denominator is
    at most `EPSILON` counts as 0. A share that rounding puts above 1 counts as 1.

    Args:
        columns: the layer as a matrix product; x float[N, G, J, R, P], weight float[G, O, J, R].
        reduce: over kernel positions r. "sum" is the share of the whole channel, which the error bound needs; "max" is
            the largest share of a single weight, as torchprune computes it.
        known: float[G, J], the largest shares for other inputs. Where a share is no larger, this is returned, and
            most shares that cannot be larger are not computed.
    """
    x, weight = columns.x, columns.weight
    shape = x.shape[1:3]
    largest = x.new_zeros(shape) if known is None else known
    if reduce == "max":
        largest = largest.repeat_interleave(x.shape[3], 1)
        x, weight = x.flatten(2, 3).unsqueeze(3), weight.flatten(2, 3).unsqueeze(3)
    for part in halves(x):
        largest = _largest_share(part, weight, largest)
    return largest.unflatten(1, (shape[1], -1)).amax(2) if reduce == "max" else largest


def halves(x: Tensor) -> tuple[Tensor, ...]:
    """Split inputs into their positive and their negative part, in the same shape; the latter only if it is not 0."""
    return (x.clamp(min=0), x.neg().clamp_(min=0)) if bool((x < 0).any()) else (x,)


def inverse(total: Tensor) -> Tensor:
    """Return 1 over each denominator; 0, so that the share is 0, where the denominator is at most `EPSILON`."""
    return torch.where(total > EPSILON, total, math.inf).reciprocal_()


def block(device: torch.device) -> int:
    """Return how many numbers one block of shares may have on a device."""
    return _BLOCK.get(device.type, _BLOCK_ELSEWHERE)


def _largest_share(x: Tensor, weight: Tensor, known: Tensor) -> Tensor:
    """Return the same as `sensitivity` with reduce "sum", for non-negative inputs."""
    if bool((known >= 1).all()):
        return known
    samples, groups, channels, kernel, patches = x.shape
    x = x.permute(1, 2, 3, 0, 4).reshape(groups, channels, kernel, samples * patches)
    signs = (weight.clamp(min=0), weight.neg().clamp(min=0))
    inverted = inverse(torch.cat(signs, 1).flatten(2) @ x.flatten(1, 2))
    positive, negative = inverted.split(weight.shape[1], 1)
    fused = largest_shares(x)
    if fused is not None:
        return fused(x, weight, positive, negative, known)
    for sign, inverted in zip(signs, (positive, negative), strict=True):
        known = torch.maximum(known, _largest_of_sign(x, sign, inverted))
    return known.clamp(max=1)  # rounding may say more


def _largest_of_sign(x: Tensor, weight: Tensor, inverted: Tensor) -> Tensor:
    """Return the largest share of each channel in any output, float[G, J], for weights of one sign.

    There are O * J * N * P shares, too many to store. They are computed and reduced in blocks.

    Args:
        x: float[G, J, R, N * P].
        weight: float[G, O, J, R], not negative.
        inverted: float[G, O, N * P], 1 over the denominators.
    """
    groups, channels, kernel, positions = x.shape
    outputs = weight.shape[1]
    weight = weight.permute(0, 2, 1, 3).contiguous()
    largest = x.new_zeros(groups, channels)
    most = block(x.device)
    width = max(1, min(positions, most // outputs))
    count = max(1, most // (outputs * width))
    some = max(1, count // channels)  # several groups at a time, if they are small
    for lowest in range(0, groups, some):
        of = slice(lowest, lowest + some)
        for first in range(0, channels, count):
            rows = slice(first, first + count)
            best = largest[of, rows]
            for start in range(0, positions, width):
                at = slice(start, start + width)
                if kernel == 1:  # the weight is the same at all positions: multiply once, after the maximum
                    shares = (x[of, rows, :, at] * inverted[of, None, :, at]).amax(3) * weight[of, rows, :, 0]
                else:
                    shares = weight[of, rows] @ x[of, rows, :, at]
                    shares *= inverted[of, None, :, at]
                torch.maximum(best, shares.flatten(2).amax(2), out=best)
    return largest


def set_size(neurons: list[int], delta: float = DELTA) -> int:
    """Return |S|, the number of scoring images that the error bound needs.

    Args:
        neurons: numbers that each layer puts out for one image, C_out * H * W.
        delta: probability of failure.

    |S| = ceil(C ln(8 eta* eta / delta)), eta the sum of the outputs and eta* the largest.
    """
    return math.ceil(C * math.log(8 * max(neurons) * sum(neurons) / delta))


def log_term(patches: int, kernel: int, delta: float = DELTA) -> float:
    """Return alpha_0 = 2 C ln(8 (P + 1) kappa / delta) of a layer with P patches and kappa kernel positions."""
    return 2 * C * math.log(8 * (patches + 1) * kernel / delta)


def sample_count(epsilon: float, total: float, log: float) -> float:
    """Return m(eps) = ceil(K (6 + 2 eps) S alpha_0 / eps^2), at least 1.

    Args:
        epsilon: relative error allowed.
        total: S, the sum of the sensitivities.
        log: `log_term` of the layer.
    """
    return max(1.0, math.ceil(K * (6 + 2 * epsilon) * total * log / epsilon**2))


def enough_draws(epsilon: float, total: float, events: int, delta: float = DELTA) -> int:
    """Return the number of draws m with which, with probability 1 - delta, no sum has a relative error above epsilon.

    A draw, divided by its probability, lies between 0 and S z, has the mean z and a variance of at most S z^2. So
    Bernstein's inequality holds. It needs the sensitivities of whole channels (reduce "sum"):

        m >= (6 + 2 eps) S ln(2 N / delta) / (3 eps^2)

    Args:
        epsilon: relative error allowed.
        total: S, the sum of the sensitivities that are drawn from.
        events: N, the number of sums: inputs times outputs times patches times signs.
        delta: probability of failure.
    """
    return math.ceil((6 + 2 * epsilon) * total * math.log(2 * events / delta) / (3 * epsilon**2))


def error_of_draws(draws: int, total: float, events: int, delta: float = DELTA) -> float:
    """Return the epsilon for which the draws are just enough: the inverse of `enough_draws`."""
    c = total * math.log(2 * events / delta) / (3 * draws)
    return c + math.sqrt(c * c + 6 * c)


def expected_distinct(q: NDArray[np.float64], count: float) -> float:
    """Return the expected number of distinct channels in `count` draws: sum over j of 1 - (1 - q_j)^count.

    Args:
        q: float64[n], probabilities.
        count: number of draws.
    """
    with np.errstate(divide="ignore"):
        return float(-np.expm1(float(count) * np.log1p(-q)).sum())  # a count may exceed int64


def draws_for(q: NDArray[np.float64], distinct: int) -> int:
    """Return the fewest draws whose expected number of distinct channels (`expected_distinct`) is at least `distinct`.

    For a uniform q this is ceil(ln(n / (n - distinct)) / ln(n / (n - 1))).

    Args:
        q: float64[n], probabilities, their sum 1; zeros are ignored.
        distinct: the distinct channels wanted; 0 and 1 take as many draws. To draw all n would take infinitely many
            draws, so n counts as n - 1.

    Source: `adapt_sample_size` of torchprune, which stops anywhere between `distinct` - 1 and `distinct` where q is not
    uniform.
    """
    q = q[q > 0]
    if distinct <= 1 or len(q) <= 1:
        return min(distinct, len(q))
    n, wanted = len(q), min(distinct, len(q) - 1)
    if q.min() == q.max():
        return math.ceil(math.log(n / (n - wanted)) / math.log(n / (n - 1)))
    enough = wanted
    while expected_distinct(q, enough) < wanted:
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        if expected_distinct(q, middle) < wanted:
            few = middle
        else:
            enough = middle
    return enough


def kept_count(sensitivities: NDArray[np.float64], epsilon: float, log: float) -> int:
    """Return the channels to keep at an error of epsilon: the expected number of distinct drawn channels, rounded up.

    Args:
        sensitivities: float64[n].
        epsilon: relative error allowed.
        log: the largest `log_term` of the layers that read the channels.
    """
    floored = np.maximum(sensitivities, FLOOR)
    total = float(floored.sum())
    distinct = expected_distinct(floored / total, sample_count(epsilon, total, log))
    # a sum of probabilities that should be a whole number may exceed it by a rounding error
    return min(len(floored), math.ceil(distinct - 1e-9))


def error_of_count(sensitivities: NDArray[np.float64], count: int, log: float) -> float:
    """Return the smallest epsilon at which at most `count` channels are kept: the inverse of `kept_count`.

    Args:
        sensitivities: float64[n].
        count: the channels kept.
        log: as for `kept_count`.
    """
    low, high = -20.0, 15.0  # decimal exponents: at the first all channels are kept, at the last as few as possible
    while high - low > 1e-6:
        middle = (low + high) / 2
        if kept_count(sensitivities, 10**middle, log) > count:
            low = middle
        else:
            high = middle
    return float(10**high)
