"""Re-weight: multiply the weights of drawn channels by c / (m q), so that results are right on average.

A channel that was drawn c times in m draws, each time with probability q, stands for the channels that were not drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pfpcli.channels.reading_layers import Reader
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import fetch
from pfpcli.planning.plan import Plan


def reweight(cut: Cut, planned: Plan, readers: Iterable[Reader]) -> None:
    """Multiply the weights of a cut network by the factors of the drawn channels; its tensors change in place.

    Products of activations have no weights and do not change.

    Args:
        cut: the cut network and its slicing.
        planned: the plan with the factors.
        readers: the reading layers.
    """
    done: set[int] = set()
    for reader in readers:
        if not reader.has_weights:
            continue
        tensor: Tensor = fetch(cut.graph.module, str(reader.weight.target))
        if id(tensor) in done:  # layers that share a weight read the same channels with it
            continue
        done.add(id(tensor))
        factors = weight_factors(reader, planned, cut.slicing.tensor(reader.weight).detach())
        with torch.no_grad():
            tensor.mul_(cut.slicing.slice(reader.weight, factors))


def weight_factors(reader: Reader, planned: Plan, weight: Tensor) -> Tensor:
    """The factor of each weight of a layer, in the shape of the original weight."""
    scale = torch.from_numpy(planned.scale[reader.contraction.labels.numpy()]).to(weight.dtype)
    shape = reader.columns(reader.x.meta["val"][:1], reader.weight.meta["val"]).weight.shape
    return reader.into_weight(scale.view(shape[0], 1, -1, 1).expand(shape), weight)
