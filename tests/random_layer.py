"""A layer with random weights and inputs, its rows and its most sensitive weights."""

from __future__ import annotations

import torch
from torch import Tensor

from pfpcli.channels.rules import Columns
from pfpcli.scoring import pfp
from pfpcli.sparsity import rows, sipp
from pfpcli.sparsity.choose import keep_largest, rankable


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_layer(samples: int = 6, groups: int = 1, signed: bool = False, seed: int = 0) -> Columns:
    """Five outputs, seven inputs, four kernel positions, nine patches."""
    x = torch.randn(samples, groups, 7, 4, 9, generator=generator(seed))
    weight = torch.randn(groups, 5, 7, 4, generator=generator(seed + 1))
    return Columns(x if signed else x.clamp(min=0), weight)


def most_sensitive(columns: Columns, budget: int, patches: str = "max") -> tuple[Tensor, Tensor]:
    """(sensitivities, which weights stay)."""
    s = sipp.weight_sensitivity(columns, patches)
    (kept,) = keep_largest([rankable(s, columns.weight)], budget)
    return s, kept


def rows_of(columns: Columns) -> tuple[Tensor, rows.Rows]:
    s = sipp.weight_sensitivity(columns, "max")
    kernel, patches = columns.x.shape[3:]
    return s, rows.rows_of(columns.weight, s, pfp.log_term(patches, kernel))
