"""The columns of a layer, gathered by unit: channels that are dropped together have one share."""

from __future__ import annotations

import torch
from torch import Tensor

from pfpcli.channels.rules import Columns


def merge_by_unit(columns: Columns, units: Tensor) -> tuple[Tensor, Columns]:
    """Merge the channels of one unit into one channel; a unit has several channels where a map was flattened.

    Args:
        columns: one group; x float[N, 1, J, R, P].
        units: int64[J], the unit of each channel.

    Returns:
        (int64[U] the units, columns with U channels of M * R kernel positions, M the most channels of a unit; units
        with fewer channels are filled up with zeros).
    """
    distinct, index, counts = torch.unique(units, return_inverse=True, return_counts=True)
    if len(distinct) == len(units) and bool((index == torch.arange(len(index))).all()):
        return units, columns
    most = int(counts.max())
    order = torch.argsort(index, stable=True)
    slot = torch.arange(len(order)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.full((len(distinct), most), -1)
    place[index[order], slot] = order
    place = place.flatten().to(columns.x.device)
    return distinct, Columns(
        _take(columns.x, place).unflatten(2, (-1, most)).flatten(3, 4),
        _take(columns.weight, place).unflatten(2, (-1, most)).flatten(3, 4),
    )


def _take(tensor: Tensor, place: Tensor) -> Tensor:
    """Return the entries at these places of dimension 2, and zeros where the place is -1."""
    taken = tensor.index_select(2, place.clamp(min=0))
    sizes = [1] * tensor.dim()
    sizes[2] = -1
    return taken * (place >= 0).view(sizes)


def are_distinct(units: Tensor) -> bool:
    """Whether no unit is twice in a row of int64[G, J]; 0, for channels that cannot be dropped, may repeat."""
    ordered = units.sort(1).values
    return not bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any())
