"""Scripts that do more than compute, as a hostile file may hold them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Saves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "hacked")
        return self.conv(x)


class MapsAFile(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + torch.from_file("hacked", True, 1)


class SavesWhenLoaded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.training = False

    @torch.jit.export
    def __getstate__(self):  # type: ignore[no-untyped-def]
        return torch.zeros(1), self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        torch.save(state[0], "hacked")
        self.training = state[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class NeverEnds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = 1
        while n > 0:
            n = 3 - n
        return self.conv(x)


class EndsByACondition(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n = 0
        while n < 3:
            n += 1
        return self.conv(x) * n
