"""Networks in the manner of those people deploy, small: detectors, generators, and the blocks they share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import ZOO, Net, conv, head

# Detectors -------------------------------------------------------------------------------------------------------


class Bottleneck(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(c, c), conv(c, c)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C2f(nn.Module):
    """A cross-stage block: split, a chain of bottlenecks, everything joined again."""

    def __init__(self, i: int, o: int, n: int = 2, inner: type[nn.Module] = Bottleneck) -> None:
        super().__init__()
        self.c = o // 2
        self.cv1, self.cv2 = conv(i, o, 1), conv((2 + n) * self.c, o, 1)
        self.m = nn.ModuleList(inner(self.c) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).chunk(2, 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class C3k(nn.Module):
    """Two paths, one through bottlenecks, joined: what C3k2 has in the place of a bottleneck."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = conv(c, c // 2, 1), conv(c, c // 2, 1), conv(c // 2 * 2, c, 1)
        self.m = Bottleneck(c // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat([self.m(self.cv1(x)), self.cv2(x)], 1))


class SPPF(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(c, c // 2, 1), conv(c * 2, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        y.extend(F.max_pool2d(y[-1], 5, 1, 2) for _ in range(3))
        return self.cv2(torch.cat(y, 1))


class Yolo(nn.Module):
    """Anchor-free: a distribution over distances for each side of a box (DFL), and class scores, at two strides."""

    bins, classes = 4, 3

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv(3, 8, 3, 2), C2f(8, 12), conv(12, 16, 3, 2)
        self.three, self.pool, self.four = C2f(16, 16, 1, C3k), SPPF(16), C2f(28, 12, 1)
        self.boxes = nn.ModuleList(nn.Sequential(conv(c, 8), nn.Conv2d(8, 4 * self.bins, 1)) for c in (12, 16))
        self.scores = nn.ModuleList(
            nn.Sequential(conv(c, c, g=c), conv(c, 8, 1), nn.Conv2d(8, self.classes, 1)) for c in (12, 16)
        )
        self.register_buffer("distances", torch.arange(self.bins, dtype=torch.float32).view(1, self.bins, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.one(self.stem(x))
        coarse = self.pool(self.three(self.two(fine)))
        fine = self.four(torch.cat([F.interpolate(coarse, scale_factor=2.0), fine], 1))
        maps = [torch.cat([b(y), s(y)], 1) for b, s, y in zip(self.boxes, self.scores, (fine, coarse), strict=True)]
        flat = torch.cat([y.view(x.shape[0], 4 * self.bins + self.classes, -1) for y in maps], 2)
        sides, scores = flat.split((4 * self.bins, self.classes), 1)
        sides = sides.view(x.shape[0], 4, self.bins, -1).transpose(1, 2).softmax(1)
        return torch.cat([F.conv2d(sides, self.distances).squeeze(1), scores.sigmoid()], 1)


class BiFPN(nn.Module):
    """Feature maps fused up and down with learnt, normalised weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleList([conv(3, 8, 3, 2), conv(8, 12, 3, 2), conv(12, 16, 3, 2)])
        self.lateral = nn.ModuleList(nn.Conv2d(c, 10, 1) for c in (8, 12, 16))
        self.fuse = nn.ModuleList(nn.Sequential(conv(10, 10, g=10), nn.Conv2d(10, 10, 1)) for _ in range(4))
        self.weights = nn.Parameter(torch.rand(4, 2))
        self.heads = nn.Conv2d(10, 6, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for stage in self.stem:
            x = stage(x)
            maps.append(x)
        low, mid, high = (lateral(y) for lateral, y in zip(self.lateral, maps, strict=True))
        mid_up = self._fused(0, mid, F.interpolate(high, mid.shape[2:]))
        low = self._fused(1, low, F.interpolate(mid_up, low.shape[2:]))
        mid = self._fused(2, mid_up, F.max_pool2d(low, 2))
        high = self._fused(3, high, F.max_pool2d(mid, 2))
        return tuple(self.heads(y) for y in (low, mid, high))

    def _fused(self, i: int, a: Tensor, b: Tensor) -> Tensor:
        weights = self.weights[i].relu()
        weights = weights / (weights.sum() + 1e-4)
        return self.fuse[i](F.silu(weights[0] * a + weights[1] * b))


class FPN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bottom, self.top = conv(3, 8, 3, 2), conv(8, 12, 3, 2)
        self.inner = nn.ModuleList([nn.Conv2d(8, 10, 1), nn.Conv2d(12, 10, 1)])
        self.outer = nn.ModuleList([nn.Conv2d(10, 10, 3, padding=1) for _ in range(2)])
        self.head = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.bottom(x)
        high = self.inner[1](self.top(low))
        low = self.inner[0](low) + F.interpolate(high, size=low.shape[-2:], mode="nearest")
        return {"fine": self.head(self.outer[0](low)), "coarse": self.head(self.outer[1](high))}


# Maps in, maps out -----------------------------------------------------------------------------------------------


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([conv(3, 8), conv(8, 12), conv(12, 16)])
        self.grow = nn.ModuleList([nn.ConvTranspose2d(16, 12, 2, 2), nn.ConvTranspose2d(12, 8, 2, 2)])
        self.up = nn.ModuleList([conv(24, 12), conv(16, 8)])
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down[0](x)
        b = self.down[1](F.max_pool2d(a, 2))
        c = self.down[2](F.max_pool2d(b, 2))
        b = self.up[0](torch.cat([b, self.grow[0](c)], 1))
        return self.out(self.up[1](torch.cat([a, self.grow[1](b)], 1)))


def generator() -> nn.Module:
    """Noise to an image, by transposed convolutions."""
    return nn.Sequential(
        nn.Unflatten(1, (10, 1, 1)),
        nn.ConvTranspose2d(10, 16, 4, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(True),
        nn.ConvTranspose2d(8, 3, 4, 2, 1),
        nn.Tanh(),
    )


def espcn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 5, padding=2), nn.Tanh(), nn.Conv2d(12, 8, 3, padding=1), nn.Tanh(),
        nn.Conv2d(8, 9, 3, padding=1), nn.PixelShuffle(3),
    )  # fmt: skip


class ASPP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.rates = nn.ModuleList(nn.Conv2d(8, 6, 3, padding=r, dilation=r) for r in (1, 2, 4))
        self.image, self.project, self.out = conv(8, 6, 1), conv(24, 10, 1), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        whole = F.interpolate(self.image(y.mean((2, 3), keepdim=True)), y.shape[2:], mode="bilinear")
        return self.out(self.project(torch.cat([*(rate(y) for rate in self.rates), whole], 1)))


# Attention of all kinds ------------------------------------------------------------------------------------------


class Between(nn.Module):
    """A block between a layer that makes eight channels and a classifier."""

    def __init__(self, block: nn.Module, out: int = 8) -> None:
        super().__init__()
        self.stem, self.block, self.last = conv(3, 8), block, nn.Sequential(conv(out, 6), head(6))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.block(self.stem(x)))


class CBAM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = x * (self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1))).sigmoid()
        return x * self.spatial(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)).sigmoid()


class ECA(nn.Module):
    """A convolution over neighbouring channels: what they are next to matters, so they stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3))[:, None])
        return x * y.transpose(1, 2)[..., None].sigmoid()


class CoordAtt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.rows, self.columns = conv(8, 6, 1), nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        y = torch.cat([x.mean(3, keepdim=True), x.mean(2, keepdim=True).permute(0, 1, 3, 2)], 2)
        rows, columns = self.squeeze(y).split([height, width], 2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()


class Ghost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.primary, self.cheap = conv(8, 5, 1), conv(5, 5, g=5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, :8]


class SK(nn.Module):
    """Selective kernels: a softmax over two branches, channel by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList([conv(8, 8, 3), conv(8, 8, 5, g=2)])
        self.squeeze, self.choose = nn.Linear(8, 4), nn.ModuleList([nn.Linear(4, 8), nn.Linear(4, 8)])

    def forward(self, x: Tensor) -> Tensor:
        y = torch.stack([path(x) for path in self.paths], 1)
        z = self.squeeze(y.sum(1).mean((2, 3)))
        weights = torch.stack([choose(z) for choose in self.choose], 1).softmax(1)
        return (y * weights[..., None, None]).sum(1)


class Split(nn.Module):
    """ResNeSt's split attention: a grouped convolution and a softmax over its splits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = conv(8, 16, 3, g=2), conv(8, 6, 1), nn.Conv2d(6, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y.reshape(y.shape[0], 2, 8, *y.shape[2:])
        weights = self.two(self.one(y.sum(1).mean((2, 3), keepdim=True)))
        weights = weights.view(y.shape[0], 1, 2, -1).transpose(1, 2).softmax(1).reshape(y.shape[0], -1, 1, 1)
        return (y * weights.reshape(y.shape[0], 2, 8, 1, 1)).sum(1)


class Involution(nn.Module):
    """A kernel for each place, made from what is there, shared among the channels of a group."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.span = conv(8, 4, 1), nn.Conv2d(4, 2 * 9, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        kernel = self.span(self.reduce(x)).view(n, 2, 9, h, w).unsqueeze(2)
        return (kernel * F.unfold(x, 3, padding=1).view(n, 2, 4, 9, h, w)).sum(3).view(n, 8, h, w)


class Deformable(nn.Module):
    """Where each kernel looks is computed; pfp has no rule for the op, which freezes what it reads and makes."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.weight = nn.Conv2d(8, 18, 3, padding=1), nn.Parameter(torch.randn(8, 8, 3, 3) / 8)

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d

        return deform_conv2d(x, self.offset(x), self.weight, padding=1)


# Sequences and pairs ---------------------------------------------------------------------------------------------


class CRNN(nn.Module):
    """Convolutions, then an LSTM over the width: the LSTM stays as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(1, 8), nn.MaxPool2d(2), conv(8, 12), nn.MaxPool2d((4, 1)))
        self.lstm, self.out = nn.LSTM(12, 6, bidirectional=True, batch_first=True), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x).squeeze(2).transpose(1, 2)
        return self.out(self.lstm(y)[0])


class Siamese(nn.Module):
    """Two images through one network, compared."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Sequential(conv(3, 8), conv(8, 10), head(10, 6)), nn.Linear(6, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.out((self.embed(a) - self.embed(b)).abs())


class Transformer(nn.Module):
    """Patches through torch's own attention, whose heads go through the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        layer = nn.TransformerEncoderLayer(12, 3, 20, batch_first=True, norm_first=True)
        self.encoder, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def audio() -> nn.Module:
    """One-dimensional, dilated and strided."""
    return nn.Sequential(
        nn.Conv1d(1, 8, 9, 4), nn.BatchNorm1d(8), nn.ReLU(),
        nn.Conv1d(8, 12, 3, dilation=2, groups=4), nn.BatchNorm1d(12), nn.ReLU(),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


NETS = {
    **ZOO,
    "yolo": Net(Yolo, ((3, 16, 16),)),
    "bifpn": Net(BiFPN, ((3, 16, 16),)),
    "fpn": Net(FPN),
    "unet": Net(UNet),
    "generator": Net(generator, ((10,),)),
    "espcn": Net(espcn, ((1, 8, 8),)),
    "aspp": Net(ASPP),
    "cbam": Net(lambda: Between(CBAM())),
    "eca": Net(lambda: Between(ECA())),
    "coord_att": Net(lambda: Between(CoordAtt())),
    "ghost": Net(lambda: Between(Ghost())),
    "selective_kernels": Net(lambda: Between(SK())),
    "split_attention": Net(lambda: Between(Split())),
    "involution": Net(lambda: Between(Involution())),
    "deformable": Net(lambda: Between(Deformable())),
    "crnn": Net(CRNN, ((1, 8, 12),)),
    "siamese": Net(Siamese, ((3, 8, 8), (3, 8, 8))),
    "transformer": Net(Transformer),
    "audio": Net(audio, ((1, 80),)),
}
