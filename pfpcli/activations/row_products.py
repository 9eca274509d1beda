"""Row products: which rows of a layer's input are taken, and products of many rows.

Products of float32 rows are taken in float32, a few thousand terms at a time, and summed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Products of float32 numbers are summed in float64 after this many terms.
CHUNK = 2048
#: Columns of a symmetric product that are computed together.
_BLOCK = 512


def summed_product(a: Tensor, b: Tensor) -> Tensor:
    """Return A'B in float64: products of a few thousand rows each in the type of the rows, their sum in float64.

    Args:
        a: float[G, M, K].
        b: float[G, M, L].
    """
    pairs = zip(a.split(CHUNK, 1), b.split(CHUNK, 1), strict=True)
    found = a.new_zeros(a.shape[0], a.shape[2], b.shape[2], dtype=torch.float64)
    for some, others in pairs:
        found += some.mT @ others
    return found


def add_square(into: Tensor, a: Tensor) -> None:
    """Add A'A as `summed_product` computes it, each product of two columns once.

    Args:
        into: float64[G, K, K].
        a: float[G, M, K].
    """
    columns = a.shape[2]
    for some in a.split(CHUNK, 1):
        for start in range(0, columns, _BLOCK):
            stop = min(columns, start + _BLOCK)
            product = some[..., start:stop].mT @ some[..., start:]
            into[:, start:stop, start:] += product
            into[:, stop:, start:stop] += product[..., stop - start :].mT


def draw_patches(there: int, wanted: int, random: torch.Generator) -> Tensor:
    """Return at most `wanted` of the patches of a layer, in ascending order: int64[p]; random: draws them."""
    return torch.randperm(there, generator=random)[:wanted].sort().values if wanted < there else torch.arange(there)
