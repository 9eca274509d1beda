"""Small networks, each isolating one structure; every engine test runs over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Net:
    """A network and the sizes of its inputs, without the batch."""

    build: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...] = ((3, 8, 8),)

    def module(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        module = self.build().eval()
        for part in module.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                    if tensor is not None:
                        nn.init.uniform_(tensor, 0.5, 1.5)
        return module

    def example(self, batch: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(batch, *size, generator=generator) for size in self.inputs)


def conv(i: int, o: int, k: int = 3, s: int = 1, g: int = 1, bias: bool = False) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=bias), nn.BatchNorm2d(o), nn.ReLU())


def head(channels: int, classes: int = 5) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Calls(nn.Module):
    """A module whose forward is given as a function of itself and its inputs; plain tensors become buffers."""

    def __init__(self, forward: Callable[..., Tensor], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, (nn.Module, nn.Parameter)):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self._call = forward

    def forward(self, *inputs: Tensor) -> Tensor:
        return self._call(self, *inputs)


def plain() -> nn.Module:
    return nn.Sequential(conv(3, 8), conv(8, 12), nn.MaxPool2d(2), conv(12, 6, bias=True), head(6))


def residual() -> nn.Module:
    return Calls(
        lambda m, x: m.head(F.relu(m.block(y := m.stem(x)) + y)),
        stem=conv(3, 8),
        block=nn.Sequential(conv(8, 6), nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8)),
        head=head(8),
    )


def projection() -> nn.Module:
    return Calls(
        lambda m, x: m.head(m.block(y := m.stem(x)) + m.shortcut(y)),
        stem=conv(3, 8),
        block=nn.Sequential(conv(8, 6, s=2), conv(6, 12)),
        shortcut=nn.Conv2d(8, 12, 1, 2),
        head=head(12),
    )


def option_a() -> nn.Module:
    return Calls(
        lambda m, x: m.head(m.block(y := m.stem(x)) + F.pad(y[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))),
        stem=conv(3, 8),
        block=nn.Sequential(conv(8, 6, s=2), conv(6, 16)),
        head=head(16),
    )


def concat() -> nn.Module:
    return Calls(
        lambda m, x: m.head(m.join(torch.cat([y := m.stem(x), m.left(y), m.right(y)], 1))),
        stem=conv(3, 6),
        left=conv(6, 5),
        right=conv(6, 7, k=1),
        join=conv(18, 8),
        head=head(8),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(conv(3, 8), conv(8, 8, g=8), conv(8, 12, k=1), conv(12, 24, g=12), conv(24, 6, k=1), head(6))


def grouped() -> nn.Module:
    return nn.Sequential(conv(3, 12), conv(12, 18, g=3), conv(18, 8), head(8))


def se_gate() -> nn.Module:
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.SiLU(), nn.Conv2d(4, 8, 1), nn.Hardsigmoid())
    return Calls(lambda m, x: m.head((y := m.stem(x)) * m.gate(y)), stem=conv(3, 8), gate=gate, head=head(8))


def flatten_linear() -> nn.Module:
    return nn.Sequential(conv(3, 6, s=2), nn.Flatten(), nn.Linear(96, 10), nn.ReLU(), nn.Dropout(0.5), nn.Linear(10, 5))


def linear_to_map() -> nn.Module:
    return Calls(
        lambda m, x: m.out(F.relu(m.up(F.relu(m.fc(x)).view(-1, 6, 4, 4)))),
        fc=nn.Linear(10, 96),
        up=nn.ConvTranspose2d(6, 8, 4, 2, 1),
        out=nn.ConvTranspose2d(8, 3, 3, 1, 1, bias=False),
    )


def shuffle() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.first(x)
        n, c, h, w = y.shape
        return m.head(m.second(y.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)))

    return Calls(forward, first=conv(3, 12), second=conv(12, 9, g=3), head=head(9))


def split_c2f() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        parts = list(m.first(x).chunk(2, 1))
        parts.append(m.block(parts[-1]))
        parts.append(m.block2(parts[-1]) + parts[-1])
        return m.head(m.last(torch.cat(parts, 1)))

    return Calls(forward, first=conv(3, 12), block=conv(6, 6), block2=conv(6, 6), last=conv(24, 8, k=1), head=head(8))


def uneven_split() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a, b, c = torch.split(m.first(x), [3, 4, 5], dim=1)
        return m.head(m.last(torch.cat([m.a(a), b, c[:, 1:4], c[:, ::2]], 1)))

    return Calls(forward, first=conv(3, 12), a=conv(3, 5), last=conv(15, 6), head=head(6))


def shared() -> nn.Module:
    return Calls(lambda m, x: m.head(m.twice(m.twice(m.stem(x)))), stem=conv(3, 8), twice=conv(8, 8), head=head(8))


def two_inputs() -> nn.Module:
    return Calls(
        lambda m, a, b: m.head(m.join(m.left(a) - m.right(b))),
        left=conv(3, 8),
        right=conv(1, 8),
        join=conv(8, 6),
        head=head(6),
    )


def two_heads() -> nn.Module:
    return Calls(
        lambda m, x: (m.first(y := m.stem(x)), {"second": m.second(m.more(y))}),
        stem=conv(3, 8),
        more=conv(8, 6),
        first=head(8, 4),
        second=head(6, 3),
    )


def unused_branch() -> nn.Module:
    return Calls(lambda m, x: m.head(m.used(x)), used=conv(3, 8), unused=conv(3, 9), head=head(8))


class LayerScale(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def layer_scale() -> nn.Module:
    return Calls(
        lambda m, x: m.head(m.block(y := m.stem(x)) + y),
        stem=conv(3, 8),
        block=nn.Sequential(nn.Conv2d(8, 6, 1), nn.GELU(), nn.Conv2d(6, 8, 1), LayerScale(8)),
        head=head(8),
    )


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, 2, padding="valid"), nn.BatchNorm1d(8), nn.LeakyReLU(0.1), nn.Conv1d(8, 6, 3, dilation=2),
        nn.PReLU(6), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip


def conv3d() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(6, 8, (1, 3, 3)),
        nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip


class FrozenBatchNorm(nn.Module):
    """A batch norm whose numbers are all buffers, spelled out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight / (self.var + 1e-5).sqrt()).reshape(1, -1, 1, 1)
        return x * scale + (self.bias.reshape(1, -1, 1, 1) - self.mean.reshape(1, -1, 1, 1) * scale)


def frozen_batch_norm() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), FrozenBatchNorm(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), head(6)
    )


def no_gradients() -> nn.Module:
    return residual().requires_grad_(False)


def one_channel() -> nn.Module:
    return Calls(
        lambda m, x: m.head(m.back(m.one(y := m.stem(x))) * y),
        stem=conv(3, 8),
        one=conv(8, 1),
        back=nn.Conv2d(1, 8, 1),
        head=head(8),
    )


class WeightStandardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=1)


def weight_standardised() -> nn.Module:
    return nn.Sequential(WeightStandardised(3, 8, 3), nn.ReLU(), WeightStandardised(8, 6, 3), nn.ReLU(), head(6))


def pixel_shuffle() -> nn.Module:
    return nn.Sequential(
        conv(3, 8), nn.Conv2d(8, 24, 3, padding=1), nn.PixelShuffle(2), nn.PixelUnshuffle(2), conv(24, 5), head(5)
    )


def grouped_transposed() -> nn.Module:
    return nn.Sequential(
        conv(3, 8),
        nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1, groups=2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 12, 2, 2, groups=12),
        conv(12, 6),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        head(6),
    )


def writes_in_place() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        y[:, :4].mul_(0.5)
        y += m.more(y)
        return m.head(y)

    return Calls(forward, stem=conv(3, 8), more=conv(8, 8), head=head(8))


def spatial_gate() -> nn.Module:
    """CBAM's spatial attention: statistics across channels."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        return m.head(y * torch.sigmoid(m.gate(torch.cat([y.mean(1, keepdim=True), y.amax(1, keepdim=True)], 1))))

    return Calls(forward, stem=conv(3, 8), gate=nn.Conv2d(2, 1, 3, padding=1), head=head(8))


def norms() -> nn.Module:
    class ChannelsLast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1)

    return nn.Sequential(
        conv(3, 8), nn.GroupNorm(2, 8), nn.Conv2d(8, 6, 1), ChannelsLast(), nn.LayerNorm(6), nn.Linear(6, 10),
        nn.GELU(), nn.Linear(10, 4),
    )  # fmt: skip


def attention() -> nn.Module:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        n, t, c = x.shape
        y = x + m.position
        q, k, v = m.qkv(m.norm(y)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        y = y + m.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c))
        return m.head((y + m.mlp(m.norm2(y))).mean(1))

    net = Calls(
        lambda m, x: forward(m, m.embed(x)),
        embed=nn.Linear(6, 8),
        norm=nn.LayerNorm(8),
        qkv=nn.Linear(8, 24),
        out=nn.Linear(8, 8),
        norm2=nn.LayerNorm(8),
        mlp=nn.Sequential(nn.Linear(8, 20), nn.GELU(), nn.Linear(20, 8)),
        head=nn.Linear(8, 4),
    )
    net.register_parameter("position", nn.Parameter(torch.randn(1, 5, 8)))
    return net


def biased_attention() -> nn.Module:
    """A bias for every pair of places, as in relative position embeddings."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = m.qkv(m.embed(x)).reshape(n, t, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
        return m.head(F.scaled_dot_product_attention(q, k, v, attn_mask=m.bias).transpose(1, 2).reshape(n, t, c))

    net = Calls(forward, embed=nn.Linear(8, 8), qkv=nn.Linear(8, 24), head=nn.Linear(8, 4))
    net.register_parameter("bias", nn.Parameter(torch.randn(1, 2, 5, 5)))
    return net


def position_attention(heads: int = 1) -> nn.Module:
    """Every position of a map looks at every other one, as in networks that mark roads, and in some detectors."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.stem(x)
        query, key, value = (part(y).flatten(2).unflatten(1, (heads, -1)) for part in (m.query, m.key, m.value))
        among = (0.5 * (query.transpose(2, 3) @ key)).softmax(3)
        return m.head(y + (value @ among.transpose(2, 3)).view(y.shape))

    layers = {"query": nn.Conv2d(8, 8, 1), "key": nn.Conv2d(8, 8, 1), "value": nn.Conv2d(8, 8, 1)}
    return Calls(forward, stem=conv(3, 8), head=head(8), **layers)


def counts() -> nn.Module:
    """A network that counts its calls in a buffer; it is in no table, since few tests are about such networks."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        m.calls += 1
        return m.layer(x)

    return Calls(forward, layer=nn.Conv2d(3, 4, 1), calls=torch.zeros(()))


class Unknown(nn.Module):
    """An op pfp has no rule for, between two convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.prod(x, 1, keepdim=True)


def unknown_op() -> nn.Module:
    return nn.Sequential(conv(3, 8), Unknown(), conv(8, 6), head(6))


ZOO = {
    "plain": Net(plain),
    "residual": Net(residual),
    "projection": Net(projection),
    "option_a": Net(option_a),
    "concat": Net(concat),
    "depthwise": Net(depthwise),
    "grouped": Net(grouped),
    "se_gate": Net(se_gate),
    "flatten_linear": Net(flatten_linear),
    "linear_to_map": Net(linear_to_map, ((10,),)),
    "shuffle": Net(shuffle),
    "split_c2f": Net(split_c2f),
    "uneven_split": Net(uneven_split),
    "shared": Net(shared),
    "two_inputs": Net(two_inputs, ((3, 8, 8), (1, 8, 8))),
    "two_heads": Net(two_heads),
    "unused_branch": Net(unused_branch),
    "layer_scale": Net(layer_scale),
    "conv1d": Net(conv1d, ((2, 40),)),
    "conv3d": Net(conv3d, ((1, 6, 8, 8),)),
    "frozen_batch_norm": Net(frozen_batch_norm),
    "no_gradients": Net(no_gradients),
    "one_channel": Net(one_channel),
    "weight_standardised": Net(weight_standardised),
    "pixel_shuffle": Net(pixel_shuffle),
    "grouped_transposed": Net(grouped_transposed),
    "writes_in_place": Net(writes_in_place),
    "spatial_gate": Net(spatial_gate),
    "norms": Net(norms),
    "attention": Net(attention, ((5, 6),)),
    "biased_attention": Net(biased_attention, ((5, 8),)),
    "position_attention": Net(position_attention),
    "unknown_op": Net(unknown_op),
}
