"""Random networks of all ops with rules: the properties of a cut hold for each of them.

`pytest tests/cutting/test_random_nets.py --hypothesis-profile=thousands` draws many more networks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.graph.trace import trace
from properties import (
    assert_costs_as_predicted,
    assert_equals_masked,
    assert_nothing_dropped_changes_nothing,
    random_drop,
)

#: The largest number of channels of a map; a convolution reduces wider maps.
WIDEST = 24

Step = tuple[int, int, int, int]


class Drawn(nn.Module):
    """A network that runs a list of steps; a layer is made when a step first needs it.

    Every step takes one or two of the present maps, float[N, C, H, W], and adds one or more maps.
    """

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList()
        self.numbers = nn.ParameterList()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self._used = self._numbered = 0
        maps = [self.layer(lambda: nn.Conv2d(x.shape[1], 8, 3, padding=1))(x)]
        for op, first, second, number in self.steps:
            a, b = maps[first % len(maps)], maps[second % len(maps)]
            if a.shape[1] > WIDEST:
                a = self.conv(a, 12)
            made = OPS[op % len(OPS)](self, a, b, number)
            maps += made if isinstance(made, list) else [made]
        last = maps[-1]
        classes = self.layer(lambda: nn.Linear(last.shape[1], 4))(last.mean((2, 3)))
        return classes, self.conv(maps[len(maps) // 2], 3)

    def layer(self, make: Callable[[], nn.Module]) -> nn.Module:
        """The next layer."""
        if self._used == len(self.layers):
            self.layers.append(make().eval())
        self._used += 1
        return self.layers[self._used - 1]

    def number(self, *sizes: int) -> Tensor:
        """The next parameter outside of layers."""
        if self._numbered == len(self.numbers):
            self.numbers.append(nn.Parameter(torch.rand(sizes) + 0.5))
        self._numbered += 1
        return self.numbers[self._numbered - 1]

    def conv(self, x: Tensor, out: int, k: int = 1, groups: int = 1) -> Tensor:
        """An ordinary or grouped convolution."""
        return self.layer(lambda: nn.Conv2d(x.shape[1], out, k, padding=k // 2, groups=groups))(x)

    def norm(self, x: Tensor) -> Tensor:
        """A batch norm with random statistics."""

        def make() -> nn.Module:
            made = nn.BatchNorm2d(x.shape[1])
            for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            return made

        return self.layer(make)(x)

    def like(self, x: Tensor, other: Tensor) -> Tensor:
        """`x` brought to the channels, height and width of another map."""
        if x.shape[2:] != other.shape[2:]:
            x = F.interpolate(x, other.shape[2:])
        return x if x.shape[1] == other.shape[1] else self.conv(x, other.shape[1])


def divisor(number: int, choice: int) -> int:
    """One of the divisors of a number."""
    found = [n for n in range(1, number + 1) if number % n == 0]
    return found[choice % len(found)]


def convolution(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return m.norm(m.conv(a, 4 + n % 9, 1 + 2 * (n % 2))).relu()


def depthwise(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return F.hardswish(m.norm(m.conv(a, a.shape[1] * (1 + n % 2), 3, a.shape[1])))


def grouped(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    groups = divisor(a.shape[1], n)
    return m.conv(a, groups * (1 + n % 3), 3, groups)


def transposed(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    groups = divisor(a.shape[1], n % 4)
    made = m.layer(lambda: nn.ConvTranspose2d(a.shape[1], groups * (2 + n % 4), 2, 2, groups=groups))(a)
    return F.max_pool2d(made, 2)


def residual(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return m.like(a, b) + b * (0.5 + n % 3)


def concat(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return torch.cat([a, F.interpolate(b, a.shape[2:]), a][: 2 + n % 2], 1)


def split(m: Drawn, a: Tensor, b: Tensor, n: int) -> list[Tensor]:
    if a.shape[1] < 2:
        return [a]
    at = 1 + n % (a.shape[1] - 1)
    return list(a.split([at, a.shape[1] - at], 1)) if n % 2 else list(a.chunk(2, 1))


def shuffle(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    groups = divisor(a.shape[1], n)
    return a.view(a.shape[0], groups, -1, *a.shape[2:]).transpose(1, 2).reshape(a.shape).tanh()


def gate(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    squeezed = m.conv(a.mean((2, 3), keepdim=True), 2 + n % 5).relu()
    return a * m.conv(squeezed, a.shape[1]).sigmoid()


def spatial_gate(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    summary = torch.cat([a.mean(1, keepdim=True), a.amax(1, keepdim=True)], 1) if n % 2 else a
    return a * m.conv(summary, 1, 3).sigmoid()


def product(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return m.like(a, b).tanh() * b.sigmoid()


def glu(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return F.glu(m.conv(a, 2 * (2 + n % 5)), 1)


def padded(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return F.pad(a, (0, 0, 0, 0, n % 3, 1 + n % 2))


def space(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    if n % 2:
        return F.avg_pool2d(F.pixel_shuffle(m.conv(a, 4 * (1 + n % 4)), 2), 2)
    return F.interpolate(F.pixel_unshuffle(a[:, : 1 + n % 4], 2), a.shape[2:])


def picked(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    if n % 3 == 0:
        return a.flip(1)
    if n % 3 == 1:
        return a[:, n % a.shape[1] :]
    return a[:, torch.arange(a.shape[1] - 1, -1, -2)]


def scaled(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    sizes = [(a.shape[1], 1, 1), (1, 1, 1, 1), (a.shape[1], *a.shape[2:])][n % 3]
    return a * m.number(*sizes) + m.number(*sizes)


def group_norm(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return m.layer(lambda: nn.GroupNorm(divisor(a.shape[1], n), a.shape[1]))(a)


def attention(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    """Tokens, a norm across channels, and heads; fused or apart, with a bias for each head or without."""
    heads, width = 1 + n % 4, 1 + n % 3
    tokens = F.adaptive_avg_pool2d(a, 4).flatten(2).transpose(1, 2)
    if n % 2:
        tokens = m.layer(lambda: nn.LayerNorm(tokens.shape[-1]))(tokens)
    inner = heads * width
    if n % 5 < 3:
        qkv = m.layer(lambda: nn.Linear(tokens.shape[-1], 3 * inner))(tokens)
        q, k, v = qkv.reshape(a.shape[0], -1, 3, heads, width).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q, k, v = (
            m.layer(lambda: nn.Linear(tokens.shape[-1], inner))(tokens)
            .view(a.shape[0], -1, heads, width)
            .transpose(1, 2)
            for _ in range(3)
        )
    if n % 7 < 3:
        seen = F.scaled_dot_product_attention(q, k, v)
    else:
        logits = q @ k.mT + (m.number(heads, 16, 16) if n % 7 < 5 else 0)
        seen = logits.softmax(-1) @ v
    made = m.layer(lambda: nn.Linear(inner, a.shape[1]))(seen.transpose(1, 2).reshape(a.shape[0], -1, inner))
    return F.interpolate(made.transpose(1, 2).unflatten(2, (4, 4)), a.shape[2:]) + a


def mlp(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    tokens = a.permute(0, 2, 3, 1)
    hidden = F.gelu(m.layer(lambda: nn.Linear(a.shape[1], 5 + n % 8))(tokens))
    return m.layer(lambda: nn.Linear(hidden.shape[-1], a.shape[1]))(hidden).permute(0, 3, 1, 2)


def twice(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    """One layer, used twice."""
    layer = m.layer(lambda: nn.Conv2d(a.shape[1], a.shape[1], 1))
    return layer(layer(a).relu())


def stacked(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    """Branches weighted by a softmax over branches, as in selective kernels."""
    branches = torch.stack([m.conv(a, a.shape[1], 1 + 2 * i) for i in range(2)], 1)
    weights = m.conv(branches.sum(1).mean((2, 3), keepdim=True), 2 * a.shape[1]).view(a.shape[0], 2, -1, 1, 1)
    return (branches * weights.softmax(1)).sum(1)


def flattened(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    flat = F.adaptive_avg_pool2d(a, 2).flatten(1)
    made = m.layer(lambda: nn.Linear(flat.shape[1], 4 * (2 + n % 4)))(flat)
    return F.interpolate(made.view(a.shape[0], -1, 2, 2), a.shape[2:])


def pooled(m: Drawn, a: Tensor, b: Tensor, n: int) -> Tensor:
    return F.max_pool2d(a, 2) if min(a.shape[2:]) > 4 else F.interpolate(a, scale_factor=2)


OPS: list[Callable[[Drawn, Tensor, Tensor, int], Tensor | list[Tensor]]] = [
    convolution, depthwise, grouped, transposed, residual, concat, split, shuffle, gate, spatial_gate, product, glu,
    padded, space, picked, scaled, group_norm, attention, mlp, twice, stacked, flattened, pooled,
]  # fmt: skip

steps = st.lists(
    st.tuples(st.integers(0, len(OPS) - 1), st.integers(0, 7), st.integers(0, 7), st.integers(0, 41)),
    min_size=1,
    max_size=9,
)


@given(steps, st.integers(0, 3))
def test_a_random_network_has_the_properties_of_every_cut(steps: list[Step], seed: int) -> None:
    torch.manual_seed(0)
    module = Drawn(steps).eval()
    example = (torch.randn(2, 3, 8, 8),)
    with torch.no_grad():
        module(*example)
    groups = group(label(trace(module, example)))
    assert groups.labelled.unknown == []
    alive = groups.alive(random_drop(groups, seed))
    smaller = cut(groups.labelled, alive).graph
    inputs = example if groups.labelled.graph.dynamic else (example[0][:1],)
    assert_costs_as_predicted(groups, alive, smaller)
    assert_equals_masked(groups, alive, smaller, inputs)
    assert_nothing_dropped_changes_nothing(groups, inputs)
