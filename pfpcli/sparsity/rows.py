"""Rows: an output of a layer and a sign. What a row loses if weights are drawn or dropped, and the draw itself.

The symbols are those of `sipp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.scoring import pfp


@dataclass(frozen=True)
class Rows:
    """The rows of a layer: [0] are the positive weights of an output, [1] the negative ones.

    Attributes:
        total: float64[2, G, O], S_i.
        live: int64[2, G, O], weights that can be drawn: their sensitivity is above `pfp.EPSILON` times the total.
        present: int64[2, G, O], weights that are not zero.
        log: `pfp.log_term` of the layer.
    """

    total: NDArray[np.float64]
    live: NDArray[np.int64]
    present: NDArray[np.int64]
    log: float

    @property
    def alpha(self) -> NDArray[np.float64]:
        """alpha_i: float64[2, G, O]."""
        alpha: NDArray[np.float64] = self.total * self.log
        return alpha


def rows_of(weight: Tensor, sensitivity: Tensor, log: float) -> Rows:
    """Return the rows of a layer.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R], with the maximum over patches.
        log: `pfp.log_term` of the layer.
    """
    side = torch.stack([weight > 0, weight < 0]).flatten(3)
    s = torch.where(side, sensitivity.double().flatten(2), 0.0)
    total = s.sum(3, keepdim=True)
    live = (s > pfp.EPSILON * total).sum(3)
    return Rows(total[..., 0].cpu().numpy(), live.cpu().numpy(), side.sum(3).cpu().numpy(), log)


def error_drawn(alpha: NDArray[np.float64], count: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return err_rand of rows that draw `count` weights; infinite for 0.

    Args:
        alpha: float64[...], `Rows.alpha`.
        count: [...], weights drawn.
    """
    a = np.divide(alpha, 3 * count, out=np.full_like(alpha, np.inf), where=count > 0)
    error: NDArray[np.float64] = (a + np.sqrt(a * a + 6 * a)) / 2
    return error


def error_dropped(weight: Tensor, sensitivity: Tensor, kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return err_det of the rows of a layer that keep their most sensitive weights: float64[2, G, O].

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], the number of kept weights.
    """
    error = np.zeros(kept.shape)
    for row, _, s in _rows_in_order(weight, sensitivity):
        error[row] = pfp.C * s[kept[row] :].sum()
    return error


def better_drawn(of: Rows, weight: Tensor, sensitivity: Tensor, kept: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which rows the hybrid form draws, because err_rand is smaller than err_det: bool[2, G, O].

    Args:
        of: the rows of the layer.
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], as `row_counts.allocate` returns it.
    """
    return error_drawn(of.alpha, kept) < error_dropped(weight, sensitivity, kept)


def draw_factors(
    weight: Tensor,
    sensitivity: Tensor,
    kept: NDArray[np.int64],
    drawn: NDArray[np.bool_],
    generator: np.random.Generator,
) -> Tensor:
    """Return the factor of each weight: float64[G, O, J, R], 0 for a dropped weight.

    A row that is not drawn keeps its most sensitive weights as they are (the first of equal ones). So does a row that
    keeps all its live weights. Any other row draws m times, so that the expected number of distinct weights is the
    number it keeps (`pfp.draws_for`); it keeps slightly more on average. A weight that was drawn c times gets the
    factor c / (m q), whose mean is 1. If all weights of a row were drawn, the row stays as it is. Weights that are not
    live are never drawn.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], as `row_counts.allocate` returns it.
        drawn: bool[2, G, O], the rows that are drawn.
        generator: of the draws.
    """
    found = np.zeros(weight.shape).reshape(*weight.shape[:2], -1)
    for row, places, s in _rows_in_order(weight, sensitivity):
        live = int((s > pfp.EPSILON * s.sum()).sum())
        factor = np.zeros(len(places))
        if drawn[row] and 0 < kept[row] < live:
            q = s[:live] / s[:live].sum()
            draws = pfp.draws_for(q, int(kept[row]))
            counts = generator.multinomial(draws, q)
            factor[:live] = counts / (draws * q)
            if factor.all():
                factor[:] = 1
        else:
            factor[: kept[row]] = 1
        found[row[1], row[2], places] = factor
    return torch.from_numpy(found).view(weight.shape)


def _rows_in_order(
    weight: Tensor, sensitivity: Tensor
) -> Iterator[tuple[tuple[int, int, int], NDArray[np.int64], NDArray[np.float64]]]:
    """Yield each row (sign, g, o), the places of its weights among J * R and their sensitivities, the largest first."""
    w, s = (each.detach().cpu().flatten(2).numpy() for each in (weight, sensitivity))
    for sign, side in enumerate((w > 0, w < 0)):
        for g, o in np.ndindex(w.shape[:2]):
            places = np.flatnonzero(side[g, o])
            found = s[g, o, places].astype(np.float64)
            order = np.argsort(-found, kind="stable")
            yield (sign, g, o), places[order], found[order]
