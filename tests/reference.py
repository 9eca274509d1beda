"""The sensitivity as one would write it down: an image, a layer, an output at a time. What scoring must equal."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pfpcli.activations.walk import Walk
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.scoring import pfp


def sensitivities(groups: Groups, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Layer -> the sensitivity of every channel it reads, float[C_in]; images float[C, ...] each."""
    found: dict[str, Tensor] = {}

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        columns = reader.columns(x, weight)
        seen = columns.x[0]
        s = torch.zeros(seen.shape[:2])
        for a in (seen.clamp(min=0), seen.neg().clamp(min=0)) if (seen < 0).any() else (seen,):
            for group in range(len(a)):
                for output in columns.weight[group]:
                    for w in (output.clamp(min=0), output.neg().clamp(min=0)):
                        terms = w[:, :, None] * a[group]
                        total = terms.sum((0, 1))
                        shares = torch.where(total > pfp.EPSILON, terms.sum(1) / total, 0.0)
                        s[group] = torch.maximum(s[group], shares.amax(1))
        s = s.flatten()
        found[reader.name] = torch.maximum(s, found.get(reader.name, s))

    walk = Walk(groups.labelled.graph.module, [r for r in readers(groups) if r.has_weights], look)
    with torch.no_grad():
        for image in images:
            walk.run(image[None])
    return found
