"""Re-weight: layers multiply the channels that were drawn for them by c / (m q), so that they are right on average."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pfpcli.channels.reading_layers import Reader
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import fetch
from pfpcli.planning.plan import Plan


def reweight(cut: Cut, planned: Plan, readers: Iterable[Reader]) -> None:
    """Multiply the weights of a cut network with which drawn channels are read; its tensors change in place.

    Products of activations have no weights of their own and stay as they are.

    Args:
        cut: the cut network and how it was made.
        planned: what was drawn.
        readers: the layers that read channels.
    """
    done: set[int] = set()
    for reader in readers:
        if not reader.has_weights:
            continue
        tensor: Tensor = fetch(cut.graph.module, str(reader.weight.target))
        if id(tensor) not in done:  # a weight that several layers share is read with the same channels by all of them
            done.add(id(tensor))
            with torch.no_grad():
                tensor.mul_(
                    cut.slicing.slice(
                        reader.weight, weight_factors(reader, planned, cut.slicing.tensor(reader.weight).detach())
                    )
                )


def weight_factors(reader: Reader, planned: Plan, weight: Tensor) -> Tensor:
    """What each weight of a layer is multiplied with, in the shape of the weight."""
    scale = torch.from_numpy(planned.scale[reader.contraction.labels.numpy()]).to(weight.dtype)
    shape = reader.columns(reader.x.meta["val"][:1], reader.weight.meta["val"]).weight.shape
    return reader.into_weight(scale.view(shape[0], 1, -1, 1).expand(shape), weight)
