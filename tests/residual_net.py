"""A small network with residual blocks."""

from __future__ import annotations

from torch import Tensor, nn

from zoo import conv


class Blocks(nn.Module):
    """A stem, two residual blocks with a hidden layer each, a layer between them that changes the width, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.between, self.head = conv(3, 8), conv(8, 12), conv(12, 20)
        self.first, self.second = (nn.ModuleList([conv(n, 2 * n), conv(2 * n, n)]) for n in (8, 12))
        self.last = nn.Conv2d(20, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first[1](self.first[0](x))
        x = self.between(x)
        x = x + self.second[1](self.second[0](x))
        return self.last(self.head(x))
