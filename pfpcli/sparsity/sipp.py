"""Sensitivity-informed pruning (SiPP): the sensitivity of a single weight, and the error bound of dropped weights.

    s_ojr = max over inputs x in S of   max or mean over patches p of   w_ojr a_jrp / sum_k,r w_okr a_krp

A row is an output o and a sign: the weights of that sign which the output reads with. Numerator and denominator are of
one row.

    symbol      here                     meaning
    S_i         Rows.total               sum of the sensitivities of row i
    alpha_i     Rows.alpha               S_i * 2 C ln(8 (P + 1) kappa / delta)
    x_i         row_counts.allocate      the number of weights that row i keeps
    err_rand    rows.error_drawn         1/2 (A + sqrt(A^2 + 6 A)),  A = alpha_i / (3 x_i)
    err_det     rows.error_dropped       C times the sum of the s of row i that are not among its x_i largest
    l_i         1 / outputs              the weight of the error of row i

There are three forms. *Deterministic*: the weights with the largest sensitivities of all layers (mean over patches)
stay as they are. *Random*: the x_i minimise sum_i l_i err_rand(x_i), where 0 <= x_i <= the weights of the row and
sum_i x_i <= budget; each row draws its weights from q = s / S_i and re-weights them (sensitivities: max over patches).
*Hybrid*: the x_i are those of the random form; each row draws its weights or keeps its largest, whichever has the
smaller error.

Sources: Baykal et al., Sensitivity-Informed Provable Pruning of Neural Networks, SIAM J. Math. Data Sci. 4(1), 2022,
and the authors' code (torchprune), which the constants and the handling of signs and small denominators follow.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pfpcli.channels.rules import Columns
from pfpcli.scoring import pfp


def weight_sensitivity(columns: Columns, patches: str) -> Tensor:
    """Return the largest share of each weight in its row: float[G, O, J, R], from 0 to 1.

    The result for several batches is the maximum of the results for each batch. Inputs of mixed sign count as two
    inputs. A share with a denominator of at most `pfp.EPSILON` counts as 0, in a mean too.

    Args:
        columns: the layer as a matrix product; x float[N, G, J, R, P], weight float[G, O, J, R].
        patches: over the patches of an input, "max", which the bounds need, or "mean", which the authors use for the
            deterministic form. Over inputs it is always the maximum.
    """
    reduce = {"max": _largest_ratio, "mean": _largest_mean_ratio}[patches]
    weight = columns.weight.flatten(2)
    largest = torch.zeros_like(weight)
    for part in pfp.halves(columns.x.flatten(2, 3)):
        for positive in (weight.clamp(min=0), weight.neg().clamp(min=0)):
            # the weight is the same at all patches: multiply once, after the maximum
            torch.maximum(largest, reduce(part, positive) * positive, out=largest)
    return largest.view_as(columns.weight)


def certificate(weight: Tensor, sensitivity: Tensor, kept: Tensor) -> Tensor:
    """Return the sum of the sensitivities that each row drops: float64[2, G, O]; the bound of a layer is the largest.

    If the sensitivities are those of "max" and the kept weights do not change, no row loses more than this fraction of
    its sum, at any patch of any scoring image (positive and negative parts separately). So the error of an output, see
    `cutting.certificate.measured_error`, is at most the larger value of its two rows.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: bool[G, O, J, R], the weights that stay.
    """
    lost = torch.where(kept.to(sensitivity.device), 0.0, sensitivity.double())
    return torch.stack([torch.where(side, lost, 0.0).flatten(2).sum(2) for side in (weight > 0, weight < 0)])


def _largest_mean_ratio(x: Tensor, weight: Tensor) -> Tensor:
    """Return the maximum over inputs of the mean over patches of a / z: float[G, O, K].

    Args:
        x: float[N, G, K, P], not negative.
        weight: float[G, O, K], not negative.
    """
    largest = torch.zeros_like(weight)
    for a in x:
        torch.maximum(largest, pfp.inverse(weight @ a) @ a.mT, out=largest)
    return largest / x.shape[-1]


def _largest_ratio(x: Tensor, weight: Tensor) -> Tensor:
    """Return the maximum over inputs and patches of a / z, in blocks of outputs and patches; see the mean."""
    a = x.permute(1, 2, 0, 3).flatten(2)  # float[G, K, N * P], the patches of all inputs side by side
    inverse = pfp.inverse(weight @ a)
    groups, size, positions = a.shape
    largest = torch.zeros_like(weight)
    # the longer of the two dimensions is the last one, which is fast on a CPU
    flat = size > positions
    if flat:
        a = a.mT.contiguous()
    most = pfp.block(x.device)
    width = max(1, min(positions, most // size))
    count = max(1, most // (size * width))
    some = max(1, count // weight.shape[1])  # several groups at a time, if they are small
    for lowest in range(0, groups, some):
        of = slice(lowest, lowest + some)
        for first in range(0, weight.shape[1], count):
            outputs = slice(first, first + count)
            best = largest[of, outputs]
            for start in range(0, positions, width):
                at = slice(start, start + width)
                if flat:
                    ratios = (a[of, None, at] * inverse[of, outputs, at, None]).amax(2)
                else:
                    ratios = (a[of, None, :, at] * inverse[of, outputs, None, at]).amax(3)
                torch.maximum(best, ratios, out=best)
    return largest
