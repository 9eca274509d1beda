"""Augment: random changes of training images.

Each function takes a batch, float[B, C, H, W], and a random generator on the CPU. A batch of another rank is returned
unchanged.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: The largest shift, as a fraction of the side.
_SHIFT = 1 / 8
#: The largest rotation in radians, and the range of the visible fraction of a side.
_TURN, _SHOWN = 0.175, (0.8, 1.05)
#: The largest relative change of contrast, and the largest change of a channel's level in standard deviations.
_CONTRAST, _LEVEL = 0.2, 0.2


def moved(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2 and shift it by up to an eighth of its side, with reflected borders."""
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
    """Rotate and zoom each image a little, and change its contrast and the levels of its channels."""
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
    """Keep each image, blend it with another one, or paste a patch of another one into it, with probability 1/3 each.

    The share of the other image is uniform on [0, 1]. No labels need mixing: the original network labels the mixture.

    Sources: Zhang et al., mixup: Beyond Empirical Risk Minimization, ICLR 2018; Yun et al., CutMix, ICCV 2019; both
    only on the inputs, as in Beyer et al., Knowledge distillation: A good teacher is patient and consistent, CVPR 2022.
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
