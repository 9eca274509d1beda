"""Augment: images as they might have been, for training on few of them.

Each takes float[B, C, H, W] and a generator on the CPU; what is no batch of images stays as it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The part of a side that an image is shifted by, at most.
_SHIFT = 1 / 8
#: Radians that it is turned by, at most; and the smallest and largest part of it that is shown.
_TURN, _SHOWN = 0.175, (0.8, 1.05)
#: How much its contrast changes, relative, and the level of each channel, in standard deviations, at most.
_CONTRAST, _LEVEL = 0.2, 0.2


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each mirrored or not, and shifted by up to an eighth of its side; outside of it is its reflection."""
    if x.dim() != 4:
        return x
    high, wide = (int(side * _SHIFT) for side in x.shape[2:])
    count = len(x)
    mirrored = torch.rand(count, generator=generator) < 0.5
    down = torch.randint(2 * high + 1, (count,), generator=generator).tolist()
    right = torch.randint(2 * wide + 1, (count,), generator=generator).tolist()
    x = torch.where(mirrored.view(-1, 1, 1, 1).to(x.device), x.flip(3), x)
    padded = F.pad(x, (wide, wide, high, high), mode="reflect")
    height, width = x.shape[2:]
    places = zip(padded, down, right, strict=True)
    return torch.stack([image[:, a : a + height, b : b + width] for image, a, b in places])


def altered(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each turned and zoomed a little, its contrast and the level of its channels changed."""
    if x.dim() != 4:
        return x
    count, channels = x.shape[:2]

    def between(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=generator)).to(x)

    angle, shown = between(-_TURN, _TURN), between(*_SHOWN)
    cos, sin, none = angle.cos() * shown, angle.sin() * shown, torch.zeros_like(angle)
    turn = torch.stack([cos, -sin, none, sin, cos, none], 1).view(-1, 2, 3)
    grid = F.affine_grid(turn, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    level = between(-_LEVEL, _LEVEL, channels, 1, 1) * x.std((1, 2, 3), keepdim=True)
    return x * between(1 - _CONTRAST, 1 + _CONTRAST, 1, 1, 1) + level


def mixed(x: Tensor, generator: torch.Generator) -> Tensor:
    """A third of them as they are, a third blended with another of the batch, a third with a patch of another.

    The share of the other is drawn uniformly. There are no labels to mix: the original says what it makes of it.

    Sources: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; Yun et al., CutMix, ICCV 2019; both on
    the inputs alone, as Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR 2022.
    """
    if x.dim() != 4 or len(x) < 2:
        return x
    count, (height, width) = len(x), x.shape[2:]
    others = torch.randperm(count, generator=generator).to(x.device)
    kinds, shares = torch.randint(3, (count,), generator=generator), torch.rand(count, generator=generator)
    corners = torch.rand(count, 2, generator=generator)
    part = torch.zeros(count, 1, height, width)
    for i, (kind, share) in enumerate(zip(kinds.tolist(), shares.tolist(), strict=True)):
        if kind == 1:
            part[i] = share
        elif kind == 2:
            high, wide = int(height * share**0.5), int(width * share**0.5)
            down, right = (corners[i] * torch.tensor([height - high + 1, width - wide + 1])).int().tolist()
            part[i, :, down : down + high, right : right + wide] = 1
    part = part.to(x)
    return (1 - part) * x + part * x[others]
