"""Every op that has a rule, in a tiny net of its own, with the properties that hold after every cut.

A row of the table gives a call of an op between a layer that makes eight channels (`first`) and a layer that reads the
result (`last`), and the number of channels that may be dropped. A rule without a row fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.rules.rule import register
from pfpcli.cutting.cut import cut
from pfpcli.cutting.masked import InFloat64
from pfpcli.graph.trace import trace
from properties import (
    assert_costs_as_predicted,
    assert_equals_masked,
    assert_nothing_dropped_changes_nothing,
    drop_all_but,
    random_drop,
)
from zoo import Calls, Net

aten = torch.ops.aten
attend = F.scaled_dot_product_attention

#: name -> (the layer that makes eight channels, the size of its input); the channels are dimension 1, or the last.
STARTS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "map": (lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6)),
    "line": (lambda: nn.Conv1d(3, 8, 3, padding=1), (3, 12)),
    "volume": (lambda: nn.Conv3d(3, 8, 3, padding=1), (3, 4, 4, 4)),
    "vector": (lambda: nn.Linear(5, 8), (5,)),
    "tokens": (lambda: nn.Linear(5, 8), (4, 5)),
}
READERS = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


@dataclass(frozen=True)
class Row:
    """One call of one op, or of several pointwise ones.

    Attributes:
        op: the overload as it shows up in the graph; several are separated by blanks.
        call: what happens to the eight channels; gets the module as well where it has parts.
        free: layer -> how many of its channels may be dropped.
        start: where the channels come from, see `STARTS`.
        parts: the tensors and layers the call needs.
        least: the fewest units that a cut keeps of a group; a deviation over one channel is not a number.
    """

    op: str
    call: Callable[..., Any]
    free: Mapping[str, int]
    start: str = "map"
    parts: Callable[[], dict[str, Any]] = field(default=dict)
    least: int = 1

    def net(self) -> Net:
        first, size = STARTS[self.start]

        def build() -> nn.Module:
            net = Calls(lambda m, x: m.last(self._between(m, m.first(x))), first=first(), **self.parts()).eval()
            with torch.no_grad():
                made = self._between(net, net.first(torch.randn(2, *size)))
            if self.start == "tokens" or made.dim() == 2:
                net.last = nn.Linear(made.shape[-1], 6)
            else:
                net.last = READERS[made.dim()](made.shape[1], 6, 1)
            return net

        return Net(build, (size,))

    def _between(self, module: nn.Module, x: Tensor) -> Tensor:
        return self.call(x) if self.parts is dict else self.call(x, module)


TABLE: list[Row] = []


def row(op: str, call: Callable[..., Any], free: int | Mapping[str, int] = 8, **rest: Any) -> None:
    """Add a row; a number of free channels is that of `first`."""
    if isinstance(free, int):
        free = {"first": free} if free else {}
    TABLE.append(Row(op, call, free, **rest))


def number(*sizes: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(sizes) + 0.5)


def p(*sizes: int) -> Callable[[], dict[str, Any]]:
    """One parameter, `w`."""
    return lambda: {"w": number(*sizes)}


def buffer(make: Callable[[], Tensor]) -> Callable[[], dict[str, Any]]:
    """One buffer, `w`."""
    return lambda: {"w": make()}


def mid(make: Callable[[], nn.Module]) -> Callable[[], dict[str, Any]]:
    """One layer, `mid`."""
    return lambda: {"mid": make()}


def layer(op: str, make: Callable[[], nn.Module], made: int = 0, read: int = 8, **rest: Any) -> None:
    """Add a row of one layer: how many of the channels it makes and of those it reads are free."""
    free = {name: count for name, count in {"first": read, "mid": made}.items() if count}
    row(op, lambda x, m: m.mid(x), free, parts=mid(make), **rest)


# fmt: off
# Pointwise -------------------------------------------------------------------------------------------------------

#: Torch tags these as pointwise; they need no rule, unless they clip.
TAGGED: dict[str, Callable[[Tensor], Tensor]] = {
    "aten.relu.default": F.relu,
    "aten.relu6.default": F.relu6,
    "aten.hardtanh.default": F.hardtanh,
    "aten.leaky_relu.default": F.leaky_relu,
    "aten.elu.default": F.elu,
    "aten.selu.default": F.selu,
    "aten.celu.default": F.celu,
    "aten.gelu.default": lambda x: F.gelu(x, approximate="tanh"),
    "aten.silu.default": F.silu,
    "aten.mish.default": F.mish,
    "aten.hardsigmoid.default": F.hardsigmoid,
    "aten.hardshrink.default": F.hardshrink,
    "aten.softshrink.default": F.softshrink,
    "aten.threshold.default": lambda x: F.threshold(x, 0.1, -1.0),
    "aten.sigmoid.default": torch.sigmoid,
    "aten.tanh.default": torch.tanh,
    "aten.abs.default": torch.abs,
    "aten.neg.default": torch.neg,
    "aten.exp.default": torch.exp,
    "aten.log.default": lambda x: (x.abs() + 1).log(),
    "aten.sqrt.default": lambda x: (x.abs() + 1).sqrt(),
    "aten.rsqrt.default": lambda x: (x.abs() + 1).rsqrt(),
    "aten.square.default": torch.square,
    "aten.sin.default": torch.sin,
    "aten.erf.default": torch.erf,
    "aten.sign.default": torch.sign,
    "aten.floor.default": torch.floor,
    "aten.round.default": torch.round,
    "aten.reciprocal.default": lambda x: (x.abs() + 1).reciprocal(),
    "aten.clamp.default": lambda x: x.clamp(-0.5, 0.5),
    "aten.clamp_min.default": lambda x: x.clamp_min(0.1),
    "aten.pow.Tensor_Scalar": lambda x: x**3,
    "aten.pow.Scalar": lambda x: 2**x,
    "aten.pow.Tensor_Tensor": lambda x: (x.abs() + 1) ** x,
    "aten.rsub.Scalar": lambda x: 1 - x,
    "aten.mul.Tensor": lambda x: x * x.mean((2, 3), keepdim=True),
    "aten.div.Tensor": lambda x: x / 3,
    "aten.maximum.default": lambda x: torch.maximum(x, -x),
    "aten.minimum.default": lambda x: torch.minimum(x, -2 * x),
    "aten.lerp.Scalar": lambda x: torch.lerp(x, x.abs(), 0.3),
    "aten.lerp.Tensor": lambda x: torch.lerp(x, x.abs(), x.sigmoid()),
    "aten.addcmul.default": lambda x: torch.addcmul(x, x, x, value=0.5),
    "aten.addcdiv.default": lambda x: torch.addcdiv(x, x, x.abs() + 1),
    "aten.atan2.default": lambda x: torch.atan2(x, x.abs() + 1),
    "aten.nan_to_num.default": torch.nan_to_num,
    "aten.gt.Scalar": lambda x: (x > 0).float(),
    "aten.logical_and.default": lambda x: torch.logical_and(x > 0, x < 1).float(),
    "aten.logical_not.default": lambda x: torch.logical_not(x > 0).float(),
    "aten.bitwise_or.Tensor": lambda x: torch.bitwise_or(x > 1, x < 0).float(),
    "aten.remainder.Scalar": lambda x: x % 0.7,
    "aten.frexp.Tensor": lambda x: torch.frexp(x).mantissa,
    "aten.clamp_max.default": lambda x: x.clamp_max(0.1),
}
#: These are as well, without torch saying so.
UNTAGGED: dict[str, Callable[[Tensor], Tensor]] = {
    "aten.hardswish.default": F.hardswish,
    "aten.log_sigmoid.default": F.logsigmoid,
    "aten.alpha_dropout.default": lambda x: F.alpha_dropout(x, 0.5, training=False),
    "aten.feature_alpha_dropout.default": lambda x: F.feature_alpha_dropout(x, 0.5, training=False),
    "aten.__or__.Tensor": lambda x: ((x > 1) | (x < 0)).float(),
    "aten.__and__.Tensor": lambda x: ((x < 1) & (x > 0)).float(),
    "aten.where.Scalar": lambda x: torch.where(x > 0, 1.0, 0.5),
    "aten.where.ScalarSelf": lambda x: torch.where(x > 0, 1.0, x),
    "aten.where.ScalarOther": lambda x: torch.where(x > 0, x, 0.5),
    "aten.absolute.default": torch.absolute,
    "aten.negative.default": torch.negative,
    "aten.multiply.Tensor": lambda x: torch.multiply(x, 3),
    "aten.subtract.Tensor": lambda x: torch.subtract(x, 3),
    "aten.divide.Tensor": lambda x: torch.divide(x, x.abs() + 1),
    "aten.rsub.Tensor": lambda x: torch.rsub(x, x.sigmoid()),
    "aten.floor_divide.default": lambda x: x // 0.3,
}
for _calls in (TAGGED, UNTAGGED):
    for _i in range(0, len(_calls), 9):
        _some = dict(list(_calls.items())[_i : _i + 9])
        row(" ".join(_some), lambda x, calls=_some: sum(call(x) for call in calls.values()))

row("aten.dropout.default", lambda x: F.dropout(x, 0.5, training=False))
row("aten.feature_dropout.default", lambda x: F.dropout2d(x, 0.5, training=False))
row("aten.contiguous.default", lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))
row("aten.clone.default", lambda x: x.clone())
row("aten.detach.default", lambda x: x.detach())
row("aten.alias.default", lambda x: aten.alias.default(x))
row("aten.lift_fresh_copy.default", lambda x: aten.lift_fresh_copy.default(x))
row("aten.to.dtype", lambda x: (x > 0).to(torch.float32) * x)
row("aten.to.device", lambda x: x.to("cpu", torch.float64).float())
row("aten.to.dtype_layout", lambda x: aten.to.dtype_layout(x, dtype=torch.float64).float())
row("aten._to_copy.default", lambda x: aten._to_copy.default(x, dtype=torch.float64).float())
row("aten.type_as.default", lambda x: (x > 0).type_as(x) * x)
row("aten.type_as.default", lambda x, m: x + m.w.double().type_as(x), parts=p(8, 1, 1))
row("aten.type_as.default", lambda x, m: (x > 0).type_as(m.w) * x, parts=p(6, 6))
row("aten.type_as.default", lambda x, m: (x > 0).type_as(m.w) * x, parts=p(8, 6, 6))
row("aten.zeros_like.default", lambda x: torch.maximum(x, torch.zeros_like(x)))
row("aten.ones_like.default", lambda x: torch.ones_like(x) - x)
row("aten.full_like.default", lambda x: torch.full_like(x, 0.3) - x)
row("aten.empty_like.default", lambda x: torch.empty_like(x).fill_(2.0) * x)
row("aten.fill.Scalar", lambda x: torch.zeros_like(x).fill_(2.0) * x)
row("aten.fill.Tensor", lambda x: aten.fill.Tensor(torch.zeros_like(x), torch.tensor(2.0)) * x)
row("aten.copy.default", lambda x: aten.copy.default(torch.zeros_like(x), x.mean((2, 3), keepdim=True)) * x)
row("aten.expand_as.default", lambda x: x.amax((2, 3), keepdim=True).expand_as(x) * x)
row("aten.expand_as.default", lambda x: x[:, :1].expand_as(x) * x, 7)
row("aten.where.self", lambda x: torch.where(x > 0, x, x * 0.1))
row("aten.where.self", lambda x: torch.where(x.mean((2, 3), keepdim=True) > 0, x, torch.zeros_like(x)))
row("aten.where.self", lambda x, m: torch.where(m.w, x, -x), parts=buffer(lambda: torch.arange(8).view(8, 1, 1) > 3))
row("aten.where.self", lambda x, m: torch.where(m.w > 1, x, m.w), parts=p(1, 8, 1, 1))
row("aten.masked_fill.Scalar", lambda x: x.masked_fill(x < 0, -1.0))
row("aten.masked_fill.Scalar", lambda x, m: x.masked_fill(m.w > 1, -1.0), parts=p(8, 6, 6))
row("aten.masked_fill.Tensor", lambda x: x.masked_fill(x < 0, torch.tensor(2.0)))
row("aten.softplus.default", lambda x: F.softplus(x, 2.0))
row("aten.rrelu.default", lambda x: F.rrelu(x, 0.1, 0.3))
row("aten.prelu.default", lambda x, m: F.prelu(x, m.w), parts=p(8))
row("aten.prelu.default", lambda x, m: F.prelu(x, m.w), parts=p(1))
row("aten.prelu.default", lambda x, m: F.prelu(x, m.w), start="tokens", parts=p(4))
row("aten.prelu.default", lambda x, m: F.prelu(x, m.w), start="vector", parts=p(8))
row("aten.add.Tensor", lambda x, m: x + m.w, parts=p(8, 1, 1))
row("aten.add.Tensor", lambda x, m: m.w + x, parts=p(1, 8, 6, 6))
row("aten.add.Tensor", lambda x, m: x + m.w, parts=p(6))
row("aten.add.Tensor", lambda x, m: x + m.w, parts=p())
row("aten.add.Tensor", lambda x, m: x + m.w[2:10].view(8, 1, 1), parts=p(12))
row("aten.add.Tensor", lambda x, m: x + m.w.t(), start="tokens", parts=p(8, 4))
row("aten.add.Tensor", lambda x, m: torch.add(x, m.mid(x), alpha=0.5), parts=lambda: {"mid": nn.Conv2d(8, 8, 1)})
row("aten.sub.Tensor", lambda x, m: x - m.mid(x), parts=lambda: {"mid": nn.Conv2d(8, 1, 1)})
# an outer sum: the channels along two dimensions at once
row("aten.add.Tensor", lambda x: x[:, :, None] + x[:, None, :], 0, start="vector")
row("aten.add.Tensor", lambda x: (x[:, :, None] + x[:, None, :]).sum(2), start="vector")
row("aten.mul.Tensor", lambda x: (x[:, :, None] * x[:, None, :]).flatten(1), 0, start="vector")
row("aten.mul.Tensor", lambda x: x[:, :4] * x[:, 4:])
row("aten.mul.Tensor", lambda x: x[:, 0:1] * x, 7)
row("aten.mul.Tensor", lambda x: x[:, :1] * x[:, 1:], 7)
row("aten.glu.default", lambda x: F.glu(x, 1))
row("aten.glu.default", lambda x: F.glu(x, 2))
row("aten.glu.default", lambda x: F.glu(x), start="tokens")
row("aten.cumsum.default", lambda x: x.cumsum(2))
row("aten.cumsum.default", lambda x: x.cumsum(-3), 0)

# Data movement ---------------------------------------------------------------------------------------------------

row("aten.flip.default", lambda x: x.flip(2))
row("aten.flip.default", lambda x: x.flip(1, -1))
row("aten.flip.default", lambda x: torch.cat([x, x.flip(-3)], 1))
row("aten.channel_shuffle.default", lambda x: F.channel_shuffle(x, 2))
row("aten.channel_shuffle.default", lambda x: aten.channel_shuffle.default(x, 4))
row("aten.flatten.using_ints", lambda x: x.flatten(1))
row("aten.flatten.using_ints", lambda x: x.flatten(2))
row("aten.flatten.using_ints", lambda x: x.transpose(1, 3).flatten(-2).transpose(1, 2))
row("aten.flatten.using_ints", lambda x: x.flatten(0, 1).relu().view(-1, 8, 6, 6), 0)
row("aten.mT.default", lambda x: x.mT)
row("aten.mT.default", lambda x: x.mT.mT, start="tokens")
row("aten.numpy_T.default", lambda x, m: x + m.w.T, start="tokens", parts=p(8, 4))
row("aten.t.default", lambda x, m: x + m.w.t(), start="tokens", parts=p(8, 4))
row("aten.movedim.int", lambda x: x.movedim(1, -1).movedim(-1, 1))
row("aten.movedim.intlist", lambda x: x.movedim((1, 2), (-1, 1)).movedim((3, 1), (1, 2)))
row("aten.moveaxis.int", lambda x: x.moveaxis(1, -1).moveaxis(-1, 1))
row("aten.swapdims.default", lambda x: x.swapdims(1, -1).swapdims(-1, 1))
row("aten.permute.default", lambda x: x.permute(0, -1, 1, 2).permute(0, 2, 3, 1))
row("aten.swapaxes.default", lambda x: x.swapaxes(1, -1).swapaxes(-1, 1))
row("aten.transpose.int", lambda x: x.transpose(1, 2), start="line", free={})
row("aten.transpose.int", lambda x: x.transpose(1, -1).transpose(-1, 1), start="line")
row("aten.unsqueeze.default", lambda x: x.unsqueeze(2))
row("aten.unsqueeze.default", lambda x: x.unsqueeze(-1), start="vector")
row("aten.pixel_shuffle.default", lambda x: F.pixel_shuffle(x, 2))
row("aten.pixel_unshuffle.default", lambda x: F.pixel_unshuffle(x, 2))
row("aten.repeat.default", lambda x: x.repeat(1, 2, 1, 1))
row("aten.repeat.default", lambda x: x.repeat(1, 3), start="vector")
row("aten.repeat.default", lambda x: x.repeat(2, 1, 1, 1, 1).sum(0))
row("aten.repeat.default", lambda x, m: x + m.w.repeat(x.shape[0], 1, 1, 1), parts=p(1, 8, 1, 1))
row("aten.tile.default", lambda x: x.tile(1, 3, 1, 2))
row("aten.repeat_interleave.self_int", lambda x: x.repeat_interleave(3, 1))
row("aten.repeat_interleave.self_int", lambda x: x.repeat_interleave(2, -1))
row("aten.repeat_interleave.self_int", lambda x: x.repeat_interleave(2, -1, output_size=16), start="tokens")
row("aten.squeeze.default", lambda x: x.mean((2, 3), keepdim=True).squeeze())
row("aten.squeeze.dim", lambda x: x.mean(2, keepdim=True).squeeze(2))
row("aten.squeeze.dim", lambda x: x.squeeze(1))
row("aten.squeeze.dim", lambda x: x.squeeze(-1), start="tokens")
row("aten.squeeze.dims", lambda x: x.mean((2, 3), keepdim=True).squeeze((2, -1)))
row("aten.squeeze.dims", lambda x: x.mean((2, 3), keepdim=True).squeeze((1, 2, 3)))
row("aten.view.default", lambda x: x.view(-1, 8, 36))
row("aten.view.default", lambda x: x.view(x.shape[0], 2, 4, 36)[:, 1])
row("aten.index_select.default", lambda x: x.view(x.shape[0], 4, 2, 6, 6).transpose(1, 2).reshape(x.shape[0], 8, 6, 6))
row("aten.view.default", lambda x: x.view(x.shape[0], -1))
row("aten.view.default", lambda x, m: x + m.w.view(1, -1, 1, 1), parts=p(8))
row("aten.view.default", lambda x, m: x + m.w.view(1, 8, 1, 1), parts=p(8))
# groups of channels are put into the batch and taken out again
row("aten.view.default", lambda x: x.view(x.shape[0] * 2, 4, 6, 6).relu().view(-1, 8, 6, 6))
row("aten.view.default", lambda x: x.view(x.shape[0] * 4, 2, 6, 6).softmax(1).view(-1, 8, 6, 6))
row("aten.view.default", lambda x: x.view(-1, 1, 6, 6).relu().view(-1, 8, 6, 6), 0)
row("aten._unsafe_view.default", lambda x: aten._unsafe_view.default(x, [-1, 8, 36]))
row("aten.reshape.default", lambda x: x.permute(0, 2, 3, 1).reshape(-1, 36, 8).transpose(1, 2))
row("aten.reshape.default", lambda x: x.reshape(-1, 2, 6, 6).softmax(1).reshape(-1, 8, 6, 6))
row("aten.reshape.default", lambda x: x.reshape(-1, 8), start="tokens")
# the batch size is written down in the forward pass, so it is fixed
row("aten.reshape.default", lambda x: x.reshape(len(x), 8, 36))
row("aten.reshape_as.default", lambda x: x.flatten(1).reshape_as(x) * x)
row("aten.reshape_as.default", lambda x, m: m.w.reshape_as(x[:1]) * x, parts=p(8, 36))
row("aten.view_as.default", lambda x: x.transpose(1, 2).contiguous().view_as(x), 0, start="tokens")
row("aten.view_as.default", lambda x: x.flatten(2).view_as(x) * x)
row("aten.unflatten.int", lambda x: x.unflatten(1, (2, 4)).sum(1))
row("aten.unflatten.int", lambda x: x.unflatten(-3, (4, -1)).sum(2))
row("aten.unflatten.int", lambda x: x.unflatten(2, (2, 3)))
row("aten.expand.default", lambda x: x.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(1, 2))
row("aten.expand.default", lambda x: x.unsqueeze(1).expand(x.shape[0], 2, 8, 6, 6).flatten(1, 2))
row("aten.expand.default", lambda x: x.mean(2, keepdim=True).expand(x.shape) * x)
row("aten.expand.default", lambda x, m: x + m.w.expand(x.shape[0], 8, 6, 6), parts=p(1, 8, 1, 1))
row("aten.expand.default", lambda x, m: torch.cat([m.w.expand(x.shape[0], -1, -1), x], 1), start="tokens",
    parts=p(1, 1, 8))

for _name, _make in {
    "aten.full.default": lambda x: torch.full((x.shape[0], 3, 6, 6), 0.5),
    "aten.new_full.default": lambda x: x.new_full((x.shape[0], 3, 6, 6), 0.5),
    "aten.new_ones.default": lambda x: x.new_ones(x.shape[0], 3, 6, 6),
    "aten.new_zeros.default": lambda x: x.new_zeros(x.shape[0], 3, 6, 6),
    "aten.ones.default": lambda x: torch.ones(x.shape[0], 3, 6, 6),
    "aten.zeros.default": lambda x: torch.zeros(x.shape[0], 3, 6, 6),
}.items():
    row(_name, lambda x, make=_make: torch.cat([make(x), x], 1))
    # padded to what it is added to, as the shortcut of a narrow residual network is
    row(_name, lambda x, m, make=_make: m.mid(x) + torch.cat([x, make(x)], 1), {"first": 8, "mid": 3},
        parts=lambda: {"mid": nn.Conv2d(8, 11, 1)})
row("aten.zeros.default", lambda x: torch.zeros(x.shape[0], 8, 6, 6) + x)
row("aten.full.default", lambda x: torch.full((x.shape[0], 8, 1, 1), 0.1) * x)
row("aten.new_zeros.default", lambda x: torch.maximum(x, x.new_zeros(x.shape)))
row("aten.zeros.default", lambda x, m: x + m.hidden(torch.zeros(x.shape[0], 4)), start="vector",
    parts=lambda: {"hidden": nn.Linear(4, 8)})

row("aten.slice.Tensor", lambda x: x[:, 2:7])
row("aten.slice.Tensor", lambda x: x[:, -3:])
row("aten.slice.Tensor", lambda x: x[:, :-2])
row("aten.slice.Tensor", lambda x: x[:, ::2])
row("aten.slice.Tensor", lambda x: x[:, 1:-1:3])
row("aten.slice.Tensor", lambda x: x[:, :, 1:4, ::2])
row("aten.slice.Tensor", lambda x: x[:, 2:100])
row("aten.slice.Tensor", lambda x: x[..., 2:7], start="tokens")
row("aten.slice.Tensor", lambda x: x[..., -6::2], start="tokens")
row("aten.slice.Tensor", lambda x: aten.slice.Tensor(x, -1, 1, None, 2), start="tokens")
row("aten.slice.Tensor", lambda x: torch.cat([x[:, 4:], x[:, :4]], 1))
row("aten.slice.Tensor", lambda x: x[:, ::4].mean(1, keepdim=True) + x[:, 1::4])
row("aten.slice.Tensor", lambda x: x[:, ::4].sum(1, keepdim=True) + x[:, 1::4])
row("aten.slice.Tensor", lambda x: x[:, 3:4], 7)
row("aten.slice.Tensor", lambda x, m: x + m.w[:8], start="vector", parts=p(12))
row("aten.slice.Tensor", lambda x, m: x * m.w[1:9:1].view(8, 1, 1), parts=p(10))
row("aten.narrow.default", lambda x: x.narrow(1, 2, 4))
row("aten.narrow.default", lambda x: x.narrow(-3, -5, 4))
row("aten.narrow.default", lambda x: x.narrow(1, -3, 3))
row("aten.narrow.default", lambda x: x.narrow(2, 1, 4))
row("aten.slice_scatter.default", lambda x: aten.slice_scatter.default(x, x[:, :4] * 2, 1, 0, 4))
row("aten.slice_scatter.default", lambda x: aten.slice_scatter.default(x, x[:, 1:4] * 2, -3, 5, None))
row("aten.slice_scatter.default", lambda x: aten.slice_scatter.default(x, x[:, ::2] * 2, 1, 0, 8, 2), 0)
row("aten.slice_scatter.default", lambda x: aten.slice_scatter.default(x, x[:, :, :3] * 2, 2, 3, 6))
row("aten.slice_scatter.default", lambda x: aten.slice_scatter.default(torch.zeros_like(x), x[:, :3], 1, -5, -2))
row("aten.slice_scatter.default", lambda x: torch.slice_scatter(x, torch.zeros(x.shape[0], 2, 6, 6), 1, 3, 5))
row("aten.select_scatter.default", lambda x: torch.select_scatter(x, x[:, :, 0] * 2, 2, -1))
row("aten.select_scatter.default", lambda x: torch.select_scatter(x, x[:, 0] * 2, 1, 3), 0)
row("aten.topk.default", lambda x: x.topk(3, 2)[0])
row("aten.topk.default", lambda x: x.topk(3, 1)[0], 0)
row("aten.sort.default aten.sort.stable", lambda x: x.sort(-1)[0] + x.sort(stable=True, dim=2)[0])
row("aten.sort.default", lambda x: x.sort(1)[0], 0)
row("aten.argsort.default", lambda x: x * x.argsort(2))
row("aten.select.int", lambda x: x[:, 2:5, 1])
row("aten.select.int", lambda x: x[:, -2].unsqueeze(1) * x, 7)
row("aten.select.int", lambda x: x.select(-1, -1))
row("aten.select.int", lambda x: x[:, 1], start="tokens")
row("aten.unbind.int", lambda x: x.unbind(2)[1])
row("aten.unbind.int", lambda x: sum(x.unbind(1)).unsqueeze(1), 0)
row("aten.unbind.int", lambda x: torch.stack(x.unbind(-1), 2))
row("aten.roll.default", lambda x: x.roll(1, 2))
row("aten.roll.default", lambda x: x.roll((1, 2), (-1, -2)))
row("aten.roll.default", lambda x: x.roll(3, 1), 0)
row("aten.roll.default", lambda x: x.roll(3), 0)
row("aten.unfold.default", lambda x: x.unfold(2, 2, 2).amax(-1))
row("aten.unfold.default", lambda x: x.unfold(-3, 2, 2).amax(-1), 0)
row("aten.im2col.default", lambda x: F.unfold(x, (3, 2), 1, 1, 2))
row("aten.im2col.default", lambda x: F.unfold(x.sum(0), 2).expand(x.shape[0], -1, -1), 0)
row("aten.col2im.default", lambda x: F.fold(F.unfold(x, 2, stride=2) * 2, 6, 2, stride=2))
row("aten.col2im.default", lambda x: F.fold(x.flatten(2), (7, 7), 2), start="map")
row("aten.chunk.default", lambda x: x.chunk(2, 1)[1])
row("aten.chunk.default", lambda x: torch.cat(x.chunk(3, -3)[::2], 1))
row("aten.chunk.default", lambda x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1], start="tokens")
row("aten.chunk.default", lambda x: x.chunk(2, 3)[1])
row("aten.chunk.default", lambda x: x.chunk(8, 1)[3] * x, 0)
row("aten.split.Tensor", lambda x: x.split(3, 1)[2] + x.split(2, 1)[1])
row("aten.split.Tensor", lambda x: x.split(3, -1)[-1], start="tokens")
row("aten.split.sizes", lambda x: aten.split.sizes(x, [1, 5, 2], 1)[1], 7)
row("aten.split_with_sizes.default", lambda x: torch.cat(x.split([3, 5], 1)[::-1], 1))
row("aten.split_with_sizes.default", lambda x: x.split([3, 5], -1)[1], start="tokens")
row("aten.tensor_split.indices", lambda x: x.tensor_split((2, 3, 6), 1)[2] + x.tensor_split((3, -2), 1)[1], 7)
row("aten.tensor_split.sections", lambda x: x.tensor_split(3, 1)[1])
row("aten.tensor_split.sections", lambda x: x.tensor_split(3, -1)[0], start="tokens")
row("aten.index_select.default", lambda x, m: x.index_select(1, m.w), parts=buffer(lambda: torch.tensor([5, 1, 1, 7])))
row("aten.index_select.default", lambda x, m: x.index_select(-1, m.w), parts=buffer(lambda: torch.tensor([5, 1, 1])))
row("aten.index_select.default", lambda x, m: x.index_select(-1, m.w), start="tokens",
    parts=buffer(lambda: torch.randperm(8)))
row("aten.index_select.default", lambda x: x.index_select(1, (x.mean((0, 2, 3)) > 0).long()), 0)
row("aten.index.Tensor", lambda x: x[:, [6, 0, 3, 3]])
row("aten.index.Tensor", lambda x: x[:, [6, -1, -8]])
row("aten.index.Tensor", lambda x: x[:, :, [1, 0, -1]])
row("aten.index.Tensor", lambda x: x[:, torch.arange(8)[::2]])
row("aten.index.Tensor", lambda x: x[..., [3, 5, 6]], start="tokens")
row("aten.index.Tensor", lambda x: x[:, [[0, 1], [2, 3]]], 0)
row("aten.index.Tensor", lambda x: x[:, [0, 1], [2, 3]], 0)
row("aten.index.Tensor", lambda x: x[:, (x.mean((0, 2, 3)) > 0).long()], 0)

row("aten.cat.default", lambda x: torch.cat([x, x.relu()], 1))
row("aten.cat.default", lambda x: torch.cat([x, -x], -1))
row("aten.cat.default", lambda x: torch.cat([x, x[:, :1]], -3), 7)
row("aten.cat.default", lambda x: torch.cat([x.amax(1, keepdim=True), x], 1))
row("aten.cat.default", lambda x, m: torch.cat([x, m.w.expand(x.shape[0], 3, 6, 6)], 1), parts=p(1, 3, 1, 1))
row("aten.cat.default", lambda x: torch.cat([x, x], 0))
row("aten.cat.default", lambda x, m: torch.cat([m.w, x], 0), parts=p(3, 8, 6, 6))
row("aten.cat.default", lambda x, m: torch.cat([m.mid(x), x], -1), {"first": 8, "mid": 5}, start="tokens",
    parts=lambda: {"mid": nn.Linear(8, 5)})
row("aten.concat.default", lambda x: aten.concat.default([x, x * 2], 1))
row("aten.concatenate.default", lambda x: torch.concatenate([x, x[:, 2:4]], 1))
row("aten.stack.default", lambda x: torch.stack([x, x.relu()], 1).flatten(1, 2))
row("aten.stack.default", lambda x: torch.stack([x, x.relu()], 2).flatten(1, 2))
row("aten.stack.default", lambda x: torch.stack([x, x.relu()], -1))
row("aten.stack.default", lambda x: torch.stack([x[:, :4], x[:, 4:]], 2).flatten(1, 2))
row("aten.pad.default", lambda x: F.pad(x, (1, 2, 0, -1)))
row("aten.pad.default", lambda x: F.pad(x, (0, 0, 0, 0, 2, 3)))
row("aten.pad.default", lambda x: F.pad(x, (0, 0, 0, 0, 0, 3), value=1.5).relu())
row("aten.pad.default", lambda x: F.pad(x, (0, 0, 0, 0, -2, 3)), 0)
row("aten.pad.default", lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"))
row("aten.pad.default", lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"), 0)
row("aten.pad.default", lambda x: F.pad(x, (1, 2), mode="circular"), start="line")
row("aten.pad.default", lambda x: F.pad(x, (2, 1)), start="tokens")
row("aten.pad.default", lambda x, m: m.mid(x) + F.pad(x, (0, 0, 0, 0, 2, 2)), {"first": 8, "mid": 4},
    parts=lambda: {"mid": nn.Conv2d(8, 12, 1)})
row("aten.constant_pad_nd.default", lambda x: aten.constant_pad_nd.default(x, [0, 0, 1, 0, 1, 1], 0.5))
row("aten.meshgrid.indexing", lambda x: x * torch.meshgrid(x.mean((0, 2)), x.mean((0, 1)), indexing="ij")[0], 0,
    start="line")
row("aten.broadcast_tensors.default", lambda x: torch.broadcast_tensors(x, x.mean((2, 3), keepdim=True))[1] * x)
row("aten.broadcast_tensors.default", lambda x, m: torch.broadcast_tensors(m.w, x)[0] * x, parts=p(8, 1, 1))

# Contractions ----------------------------------------------------------------------------------------------------


layer("aten.conv1d.default", lambda: nn.Conv1d(8, 10, 3, 2, 1, 2, 2), 10, start="line")
layer("aten.conv1d.default", lambda: nn.Conv1d(8, 8, 3, groups=8), start="line")
layer("aten.conv1d.padding", lambda: nn.Conv1d(8, 6, 3, padding="same", dilation=2), 6, start="line")
layer("aten.conv2d.default", lambda: nn.Conv2d(8, 5, (3, 1), (1, 2), (1, 0), bias=False), 5)
layer("aten.conv2d.default", lambda: nn.Conv2d(8, 12, 3, groups=4), 12)
layer("aten.conv2d.default", lambda: nn.Conv2d(8, 24, 3, groups=8))
layer("aten.conv2d.default", lambda: nn.Conv2d(8, 1, 1))
layer("aten.conv2d.padding", lambda: nn.Conv2d(8, 6, (5, 3), padding="same", groups=2), 6)
layer("aten.conv2d.padding", lambda: nn.Conv2d(8, 16, 3, padding="valid", groups=8))
layer("aten.conv3d.default", lambda: nn.Conv3d(8, 6, (1, 3, 2), padding=(0, 1, 1), groups=2), 6, start="volume")
layer("aten.conv3d.padding", lambda: nn.Conv3d(8, 5, 3, padding="same"), 5, start="volume")
layer("aten.conv_transpose1d.default", lambda: nn.ConvTranspose1d(8, 6, 3, 2, 1, 1, 2), 6, start="line")
layer("aten.conv_transpose1d.default", lambda: nn.ConvTranspose1d(8, 8, 3, groups=8), start="line")
layer("aten.conv_transpose2d.input", lambda: nn.ConvTranspose2d(8, 10, 3, 3, 1, 2, 2, dilation=2), 10)
layer("aten.conv_transpose2d.input", lambda: nn.ConvTranspose2d(8, 5, (2, 3), bias=False), 5)
layer("aten.conv_transpose2d.input", lambda: nn.ConvTranspose2d(8, 16, 2, 2, groups=8), read=0)
layer("aten.conv_transpose3d.input", lambda: nn.ConvTranspose3d(8, 6, 2, 2, groups=2), 6, start="volume")
# the weight is a parameter of its own, seen through a view; or half of one
row("aten.conv2d.default", lambda x, m: F.conv2d(x, m.w.transpose(0, 1)), {"first": 8, "conv2d_1": 5},
    parts=p(8, 5, 1, 1))
row("aten.conv2d.default", lambda x, m: F.conv2d(x, m.w[2:7]), {"first": 8, "conv2d_1": 5}, parts=p(9, 8, 1, 1))
row("aten.conv2d.default", lambda x, m: F.conv2d(x[:, :4], m.mid.weight[:, :4]), {"first": 8, "conv2d_1": 6},
    parts=mid(lambda: nn.Conv2d(8, 6, 1)))
# a weight made by a layer
row("aten.conv2d.default", lambda x, m: F.conv2d(x, m.mid(x.mean((0, 2, 3))).view(6, 8, 1, 1)),
    parts=mid(lambda: nn.Linear(8, 48)))
# one sample of a batch; a batch that is put into the channels
row("aten.conv2d.default", lambda x, m: m.mid(x.sum(0)).expand(x.shape[0], 6, 6, 6), 0,
    parts=mid(lambda: nn.Conv2d(8, 6, 1)))
row("aten.conv2d.default", lambda x,
    m: F.conv2d(x.view(1, -1, 6, 6), m.w.repeat(x.shape[0], 1, 1, 1), groups=x.shape[0]).view(-1, 6, 6, 6), 0,
    parts=p(6, 8, 1, 1))
row("aten.conv2d.default",
    lambda x: F.conv2d(x.view(1, -1, 6, 6), x.mean((2, 3)).view(-1, 1, 1, 1), groups=8 * x.shape[0]).view(-1, 8, 6, 6),
    0)

for _n, _start in ((2, "map"), (1, "line")):
    row("aten.convolution.default", start=_start, free={"first": 8, "w": 6},
        parts=lambda n=_n: {"w": number(6, 4, *[3] * n), "b": number(6)}, call=lambda x, m, n=_n:
        aten.convolution.default(x, m.w, m.b, [1] * n, [1] * n, [1] * n, False, [0] * n, 2))
    row("aten._convolution.default", start=_start, free={"first": 8, "w": 6},
        parts=lambda n=_n: {"w": number(8, 3, *[3] * n)}, call=lambda x, m, n=_n:
        aten._convolution.default(x, m.w, None, [2] * n, [1] * n, [1] * n, True, [1] * n, 2, *[False] * 4))
row("aten.convolution.default", parts=p(8, 1, 3, 3), call=lambda x, m:
    aten.convolution.default(x, m.w, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 8))

layer("aten.linear.default", lambda: nn.Linear(8, 5), 5, start="tokens")
layer("aten.linear.default", lambda: nn.Linear(8, 5, bias=False), 5, start="vector")
layer("aten.linear.default", lambda: nn.Linear(8, 1), start="vector")
layer("aten.linear.default", lambda: nn.Linear(6, 5))
row("aten.linear.default", lambda x, m: F.linear(x, m.w.t(), m.b), {"first": 8, "b": 5}, start="tokens",
    parts=lambda: {"w": number(8, 5), "b": number(5)})
row("aten.linear.default", lambda x, m: F.linear(F.linear(x, m.w), m.w.t()), {"first": 8, "w": 5}, start="vector",
    parts=p(5, 8))
row("aten.linear.default", lambda x, m: m.mid(x.transpose(1, 2)).transpose(1, 2), {"first": 8, "mid": 5}, start="line",
    parts=mid(lambda: nn.Linear(8, 5)))
row("aten.matmul.default", lambda x, m: x @ m.w, {"first": 8, "w": 5}, start="tokens", parts=p(8, 5))
row("aten.matmul.default", lambda x, m: x @ m.w.t(), {"first": 8, "matmul": 5}, start="vector", parts=p(5, 8))
row("aten.matmul.default", lambda x, m: m.w @ x, 8, start="line", parts=p(5, 8))
row("aten.matmul.default", lambda x, m: m.w @ x, 8, start="tokens", parts=p(5, 4))
row("aten.matmul.default", lambda x, m: x @ m.w, 0, start="tokens", parts=p(8))
row("aten.matmul.default", lambda x, m: x @ m.w, 8, parts=p(6, 5))
row("aten.matmul.default", lambda x, m: x.transpose(1, 3) @ m.w, 8, parts=p(6, 8, 5))
row("aten.matmul.default", lambda x, m: x @ m.w, 8, parts=p(8, 6, 5))
row("aten.matmul.default", lambda x: x @ x.transpose(-1, -2), 8)
row("aten.matmul.default", lambda x: (x @ x.mT).softmax(-1) @ x, 8, start="line")
row("aten.matmul.default", lambda x: ((x.mT @ x).softmax(-1) @ x.mT).mT, 8, start="line")
row("aten.matmul.default", lambda x: (x @ x.mT).flatten(1), 0, start="line")
row("aten.matmul.default", lambda x: x @ x.mT[:, :, :1], 7, start="line")
row("aten.bmm.default", lambda x: torch.bmm(torch.bmm(x, x.mT).softmax(-1), x), start="tokens")
row("aten.bmm.default", lambda x: torch.bmm(x, x.mT).sum(2), start="line")
row("aten.bmm.default", lambda x, m: torch.bmm(x, m.w.expand(x.shape[0], 8, 5)), 8, start="tokens", parts=p(1, 8, 5))
row("aten.mm.default", lambda x, m: torch.mm(x, m.w), {"first": 8, "w": 5}, start="vector", parts=p(8, 5))
row("aten.mm.default", lambda x: torch.mm(x.sigmoid(), torch.mm(x.t(), x)), 8, start="vector")
row("aten.addmm.default", lambda x, m: torch.addmm(m.b, x, m.w, beta=0.5, alpha=2), {"first": 8, "w": 5},
    start="vector", parts=lambda: {"w": number(8, 5), "b": number(5)})
row("aten.addmm.default", lambda x, m: torch.addmm(x, x.relu(), m.w), {"first": 8}, start="vector", parts=p(8, 8))
row("aten.addmm.default", lambda x, m: torch.addmm(m.b, x, m.w), {"first": 8, "w": 5}, start="vector",
    parts=lambda: {"w": number(8, 5), "b": number(1)})
row("aten.addmm.default", lambda x, m: torch.addmm(m.b, x, m.w.t()), {"first": 8, "addmm": 5}, start="vector",
    parts=lambda: {"w": number(5, 8), "b": number(1, 5)})
row("aten.baddbmm.default", lambda x: torch.baddbmm(x, torch.bmm(x, x.mT), x, beta=0.5), start="tokens")
row("aten.baddbmm.default", lambda x, m: torch.baddbmm(m.b, x, x.mT) @ x, start="tokens",
    parts=lambda: {"b": number(4, 4)})
row("aten.baddbmm.default", lambda x, m: torch.baddbmm(m.b, x, x.mT).sum(2), start="line",
    parts=lambda: {"b": number(8, 1)})


def heads(x: Tensor, m: Any, count: int, read: Callable[..., Tensor] = attend) -> Tensor:
    """Self-attention with heads; `read` makes of queries, keys and values, [N, heads, T, width] each, what is read."""
    n, t, _ = x.shape
    q, k, v = m.qkv(x).view(n, t, 3, count, -1).permute(2, 0, 3, 1, 4)
    return m.out(read(q, k, v).transpose(1, 2).flatten(2))


def attention(**more: int | tuple[int, ...]) -> Callable[[], dict[str, Any]]:
    return lambda: {"qkv": nn.Linear(8, 24), "out": nn.Linear(8, 8)} | {k: number(*v) for k, v in more.items()}


def by_hand(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    return (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias).softmax(-1) @ v


def in_the_batch(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n, h, t, d = q.shape
    a = torch.bmm(q.reshape(n * h, t, d), k.reshape(n * h, t, d).mT).softmax(-1)
    return torch.bmm(a, v.reshape(n * h, t, d)).view(n, h, t, d)


def with_letters(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhij,bhjd->bhid", torch.einsum("bhid, bhjd -> bhij", q, k).softmax(-1), v)


ALL = {"first": 8, "qkv": 24, "out": 8}
HEADS = {**ALL, "qkv (heads)": 2}
row("aten.scaled_dot_product_attention.default", lambda x, m: heads(x, m, 2), HEADS, start="tokens", parts=attention())
# heads as wide as one channel: the heads may be dropped
row("aten.scaled_dot_product_attention.default", lambda x, m: heads(x, m, 8), ALL, start="tokens", parts=attention())
row("aten.scaled_dot_product_attention.default", lambda x: attend(x, x, x), start="tokens")
row("aten.scaled_dot_product_attention.default", lambda x: attend(x, x * 2, x, is_causal=True, scale=0.3),
    start="tokens")
row("aten.scaled_dot_product_attention.default", lambda x: attend(x, x, x, x @ x.mT), start="tokens")
for _size in ((4, 4), (1, 4), (8, 4, 4), (1, 8, 4, 4), (1, 1, 4, 4)):
    row("aten.scaled_dot_product_attention.default",
        lambda x, m: heads(x, m, 8, lambda q, k, v: attend(q, k, v, m.mask)), ALL,
        start="tokens", parts=attention(mask=_size))
# four heads of queries share two of keys and values: none may be dropped
row("aten.scaled_dot_product_attention.default",
    lambda x, m: attend(m.q(x).view(-1, 4, 4, 2).transpose(1, 2), kv := m.kv(x).view(-1, 4, 2, 2).transpose(1, 2), kv,
                        enable_gqa=True).transpose(1, 2).flatten(2),
    8, start="tokens", parts=lambda: {"q": nn.Linear(8, 8), "kv": nn.Linear(8, 4)})
row("aten.softmax.int", lambda x, m: heads(x, m, 2, by_hand), HEADS, start="tokens", parts=attention())
# a table of biases has one row for each head, which is dropped with the head
row("aten.softmax.int", lambda x, m: heads(x, m, 2, lambda *qkv: by_hand(*qkv, m.bias)), HEADS, start="tokens",
    parts=attention(bias=(2, 4, 4)))
row("aten.bmm.default", lambda x, m: heads(x, m, 2, in_the_batch), ALL, start="tokens", parts=attention())
# more heads than each is wide: the heads could be dropped, but not out of the batch
row("aten.bmm.default", lambda x, m: heads(x, m, 4, in_the_batch), {"first": 8, "out": 8}, start="tokens",
    parts=attention())
for _count in (2, 8):
    row("aten.einsum.default", lambda x, m, n=_count: heads(x, m, n, with_letters), ALL, start="tokens",
        parts=attention())
row("aten.einsum.default", lambda x: torch.einsum("nchw,nkhw->nck", x, x).sum(2))
row("aten.einsum.default", lambda x: torch.einsum("nchw->nhc", x).transpose(1, 2))
row("aten.einsum.default", lambda x: torch.einsum("ij,kj,lj->ikl", x, x, x.abs()).sum((1, 2))[:, None], start="vector")
row("aten.einsum.default", lambda x, m: torch.einsum("ntc,cd", x, m.w), start="tokens", parts=p(8, 5))
row("aten.einsum.default", lambda x, m: torch.einsum("nchw,dc->ndhw", x, m.w), parts=p(5, 8))
row("aten.einsum.default", lambda x, m: torch.einsum("nct,cs->nct", x, m.w), start="line", parts=p(8, 1))
row("aten.einsum.default", lambda x, m: torch.einsum("nct,ct->nct", x, m.w), start="line", parts=p(1, 12))
row("aten.einsum.default", lambda x: torch.einsum("...t,...t->...", x, x), 0, start="line")
row("aten.einsum.default", lambda x: torch.einsum("nij,nij,jj->ni", x, x, x[0].T @ x[0]), 0, start="line")
row("aten.embedding.default", lambda x, m: F.embedding((x.sum(-1) > 0).long(), m.w) + x, start="tokens", parts=p(2, 8))
row("aten.embedding.default", lambda x, m: F.embedding((x > 0).long(), m.w).sum(2), {}, start="tokens", parts=p(2, 5))
row("aten.embedding.default", lambda x, m: m.mid(F.embedding((x[:, :, 0] > 0).long(), m.w)), {"first": 7, "mid": 7},
    start="tokens", parts=lambda: {"w": number(2, 5), "mid": nn.Linear(5, 7)})

# Statistics ------------------------------------------------------------------------------------------------------

layer("aten.batch_norm.default", lambda: nn.BatchNorm2d(8))
layer("aten.batch_norm.default", lambda: nn.BatchNorm1d(8, affine=False), start="vector")
layer("aten.batch_norm.default", lambda: nn.BatchNorm1d(4), start="tokens")
layer("aten.instance_norm.default", lambda: nn.InstanceNorm2d(8, affine=True))
layer("aten.instance_norm.default", lambda: nn.InstanceNorm1d(8, track_running_stats=True), start="line")
BUFFERS = {name: torch.rand(8) + 0.5 for name in ("weight", "bias", "mean", "var")}
row("aten._native_batch_norm_legit_no_training.default", parts=lambda: BUFFERS, call=lambda x, m: (
    aten._native_batch_norm_legit_no_training.default(x, m.weight, m.bias, m.mean, m.var, 0.1, 1e-5)[0]))
row("aten.native_batch_norm.default", parts=lambda: BUFFERS, call=lambda x, m: (
    aten.native_batch_norm.default(x, m.weight, m.bias, m.mean, m.var, False, 0.1, 1e-5)[0]))
row("aten.native_batch_norm.default", lambda x: (
    y := aten.native_batch_norm.default(x, None, None, None, None, True, 0.1, 1e-5))[0] + y[1].view(1, 8, 1, 1))

row("aten.adaptive_avg_pool1d.default", lambda x: F.adaptive_avg_pool1d(x, 3), start="line")
row("aten.adaptive_avg_pool2d.default", lambda x: F.adaptive_avg_pool2d(x, (1, 2)))
row("aten.adaptive_avg_pool3d.default", lambda x: F.adaptive_avg_pool3d(x, 2), start="volume")
row("aten.adaptive_avg_pool2d.default", lambda x: F.adaptive_avg_pool2d(x.transpose(1, 2), (8, 6)).transpose(1, 2), 0)
row("aten._adaptive_avg_pool2d.default", lambda x: aten._adaptive_avg_pool2d.default(x, [2, 2]))
row("aten._adaptive_avg_pool3d.default", lambda x: aten._adaptive_avg_pool3d.default(x, [2, 1, 2]), start="volume")
row("aten.adaptive_max_pool1d.default", lambda x: F.adaptive_max_pool1d(x, 3), start="line")
row("aten.adaptive_max_pool2d.default", lambda x: F.adaptive_max_pool2d(x, 2))
row("aten.adaptive_max_pool3d.default", lambda x: F.adaptive_max_pool3d(x, 2), start="volume")
row("aten.avg_pool1d.default", lambda x: F.avg_pool1d(x, 3, 2, 1), start="line")
row("aten.avg_pool2d.default", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))
row("aten.avg_pool3d.default", lambda x: F.avg_pool3d(x, 2), start="volume")
row("aten.avg_pool1d.default", lambda x: F.avg_pool1d(x, 2), 0, start="tokens")
row("aten.max_pool1d.default", lambda x: F.max_pool1d(x, 3, 2, 1), start="line")
row("aten.max_pool2d.default", lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True))
row("aten.max_pool3d.default", lambda x: F.max_pool3d(x, 2), start="volume")
row("aten.max_pool1d_with_indices.default", lambda x: F.max_pool1d(x, 3, return_indices=True)[0], start="line")
row("aten.max_pool2d_with_indices.default", lambda x: (y := F.max_pool2d(x, 3, return_indices=True))[0] + y[1])
row("aten.max_pool3d_with_indices.default", lambda x: F.max_pool3d(x, 2, return_indices=True)[0], start="volume")

for _n, _start in ((1, "line"), (2, "map"), (3, "volume")):
    for _mode, _op in (("nearest", "upsample_nearest"), ("nearest-exact", "_upsample_nearest_exact")):
        row(f"aten.{_op}{_n}d.vec", lambda x, mode=_mode: F.interpolate(x, scale_factor=2, mode=mode), start=_start)
    _sized = {"upsample_nearest": [7] * _n, "reflection_pad": [1, 2] * _n, "replication_pad": [0, 3] * _n}
    for _op, _sizes in _sized.items():
        _call = getattr(aten, f"{_op}{_n}d").default
        row(f"aten.{_op}{_n}d.default", lambda x, call=_call, sizes=_sizes: call(x, sizes), start=_start)
for _mode, _op, _start in (
    ("linear", "aten.upsample_linear1d.vec", "line"),
    ("bilinear", "aten.upsample_bilinear2d.vec", "map"),
    ("bicubic", "aten.upsample_bicubic2d.vec", "map"),
    ("trilinear", "aten.upsample_trilinear3d.vec", "volume"),
):
    row(_op, lambda x, mode=_mode: F.interpolate(x, scale_factor=2, mode=mode), start=_start)
row("aten.upsample_bilinear2d.vec", lambda x: F.interpolate(x, (5, 9), mode="bilinear", align_corners=True))
for _mode in ("bilinear", "bicubic"):
    row(f"aten._upsample_{_mode}2d_aa.vec", lambda x, mode=_mode: F.interpolate(x, (4, 3), mode=mode, antialias=True))
for _op in (aten._upsample_bilinear2d_aa.default, aten._upsample_bicubic2d_aa.default):
    row(str(_op), lambda x, op=_op: op(x, [4, 3], False))
row("aten.upsample_bilinear2d.default", lambda x: aten.upsample_bilinear2d.default(x, [7, 9], False))
row("aten.upsample_bicubic2d.default", lambda x: aten.upsample_bicubic2d.default(x, [7, 9], True))
row("aten.grid_sampler.default", lambda x: F.grid_sample(x, x[:, 2:4].permute(0, 2, 3, 1), align_corners=False), 6)

row("aten.sum.dim_IntList", lambda x: x.sum(1, keepdim=True) + x)
row("aten.sum.dim_IntList", lambda x: x.sum(-3)[:, None])
row("aten.sum.dim_IntList", lambda x: x.sum((2, 3)))
row("aten.sum.dim_IntList", lambda x: x.sum((1, 2)))
row("aten.sum.dim_IntList", lambda x: x.sum(-1, keepdim=True), start="tokens")
row("aten.sum.dim_IntList", lambda x: (x > 0).sum(1, keepdim=True).float())
row("aten.sum.default", lambda x: x * x.sum())

for _op, _call in {
    "aten.mean.dim": lambda x, dim, keep: x.mean(dim, keep),
    "aten.amax.default": lambda x, dim, keep: x.amax(dim, keep),
    "aten.amin.default": lambda x, dim, keep: x.amin(dim, keep),
    "aten.logsumexp.default": lambda x, dim, keep: x.logsumexp(dim, keep),
    "aten.linalg_vector_norm.default": lambda x, dim, keep: torch.linalg.vector_norm(x, 2, dim, keep),
    "aten.norm.ScalarOpt_dim": lambda x, dim, keep: aten.norm.ScalarOpt_dim(x, 1, dim, keep),
    "aten.std.correction": lambda x, dim, keep: x.std(dim, correction=1, keepdim=keep),
    "aten.std.dim": lambda x, dim, keep: aten.std.dim(x, dim, True, keep),
    "aten.std_mean.correction": lambda x, dim, keep: sum(torch.std_mean(x, dim, correction=1, keepdim=keep)),
    "aten.std_mean.dim": lambda x, dim, keep: sum(torch.std_mean(x, dim, keepdim=keep)),
    "aten.var.correction": lambda x, dim, keep: x.var(dim, correction=0, keepdim=keep),
    "aten.var.dim": lambda x, dim, keep: aten.var.dim(x, dim, False, keep),
    "aten.var_mean.correction": lambda x, dim, keep: sum(torch.var_mean(x, dim, correction=0, keepdim=keep)),
    "aten.var_mean.dim": lambda x, dim, keep: sum(torch.var_mean(x, dim, keepdim=keep)),
}.items():
    row(_op, lambda x, call=_call: call(x, [2, 3], True) * x)
    row(_op, lambda x, call=_call: call(x, [-1], False), start="tokens", least=2)
    row(_op, lambda x, call=_call: call(x, [1, -1], True) * x)
for _op in ("all", "any"):
    row(f"aten.{_op}.dim", lambda x, op=_op: getattr(x > -1, op)(2, keepdim=True) * x)
    row(f"aten.{_op}.dim", lambda x, op=_op: getattr(x > -1, op)(1, keepdim=True) * x)
row("aten.mean.default", lambda x: x * x.mean())
row("aten.max.default", lambda x: x * x.max())
row("aten.min.default", lambda x: x * x.min())
for _way in ("max", "min"):
    row(f"aten.{_way}.dim", lambda x, way=_way: getattr(x, way)(1, keepdim=True)[0] * x)
    row(f"aten.{_way}.dim", lambda x, way=_way: getattr(x, way)(-1)[0])
    row(f"aten.{_way}.dim", lambda x, way=_way: (y := getattr(x, way)(2))[0] * y[1])
    row(f"aten.{_way}.dim", lambda x, way=_way: getattr(x, way)(-1)[1].float(), 0, start="tokens")
    row(f"aten.arg{_way}.default", lambda x, way=_way: getattr(x, f"arg{way}")(2).float())
    row(f"aten.arg{_way}.default", lambda x, way=_way: getattr(x, f"arg{way}")(1, keepdim=True) * x, 0)
    row(f"aten.arg{_way}.default", lambda x, way=_way: getattr(x, f"arg{way}")() * x, 0)

row("aten.softmax.int", lambda x: x.softmax(1))
row("aten.softmax.int", lambda x: x.softmax(-1) * x)
row("aten.softmax.int", lambda x: x.softmax(-1) * x, start="tokens")
row("aten.log_softmax.int", lambda x: x.log_softmax(-3))
row("aten.log_softmax.int", lambda x: x.log_softmax(2))
row("aten._softmax.default", lambda x: aten._softmax.default(x, 1, False))
row("aten._softmax.default", lambda x: aten._softmax.default(x, -1, False))
row("aten._log_softmax.default", lambda x: aten._log_softmax.default(x, 1, False))

layer("aten.layer_norm.default", lambda: nn.LayerNorm(8), start="tokens")
layer("aten.layer_norm.default", lambda: nn.LayerNorm((8, 6, 6)))
layer("aten.layer_norm.default", lambda: nn.LayerNorm((6, 6), bias=False))
layer("aten.layer_norm.default", lambda: nn.LayerNorm((8, 6, 6), elementwise_affine=False))
row("aten.layer_norm.default", lambda x, m: m.mid(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
    parts=mid(lambda: nn.LayerNorm(8)))
row("aten.native_layer_norm.default", start="tokens", parts=lambda: {"w": number(8), "b": number(8)},
    call=lambda x, m: (y := aten.native_layer_norm.default(x, [8], m.w, m.b, 1e-5))[0] + y[1] * y[2])
row("aten.native_layer_norm.default", lambda x: aten.native_layer_norm.default(x, [6, 6], None, None, 1e-5)[1] * x)
layer("aten.rms_norm.default", lambda: nn.RMSNorm(8), start="tokens")
layer("aten.rms_norm.default", lambda: nn.RMSNorm((8, 12), elementwise_affine=False), start="line")
layer("aten.group_norm.default", lambda: nn.GroupNorm(2, 8))
layer("aten.group_norm.default", lambda: nn.GroupNorm(1, 8), start="line")
layer("aten.group_norm.default", lambda: nn.GroupNorm(4, 8, affine=False), start="volume")
layer("aten.group_norm.default", lambda: nn.GroupNorm(8, 8))
row("aten.native_group_norm.default", parts=lambda: {"w": number(8), "b": number(8)}, call=lambda x, m: (
    aten.native_group_norm.default(x, m.w, m.b, x.shape[0], 8, 36, 2, 1e-5)[0]))
row("aten.native_group_norm.default", lambda x: (
    y := aten.native_group_norm.default(x, None, None, x.shape[0], 8, 36, 4, 1e-5))[0] * y[1].sum(1).view(-1, 1, 1, 1))
# fmt: on

# -----------------------------------------------------------------------------------------------------------------

IDS = [f"{row.op} {sum(other.op == row.op for other in TABLE[:i]) + 1}" for i, row in enumerate(TABLE)]


def rows(wanted: Callable[[Row], bool]) -> pytest.MarkDecorator:
    """One test a row."""
    params = [pytest.param(i, id=IDS[i]) for i, each in enumerate(TABLE) if wanted(each)]
    return pytest.mark.parametrize("index", params)


def has_columns(row: Row) -> bool:
    return any(op in rules.RULES and rules.RULES[op].columns for op in row.op.split())


every_row = rows(lambda row: True)


@cache
def grouped(index: int) -> Groups:
    net = TABLE[index].net()
    return group(label(trace(net.module(), net.example())))


def inputs(index: int, seed: int = 0) -> tuple[Tensor, ...]:
    """A batch of another size than the example, where the network takes any."""
    return TABLE[index].net().example(grouped(index).labelled.graph.fixed_batch or 3, seed)


def test_every_op_that_has_a_rule_has_a_net() -> None:
    assert set(rules.RULES) - {op for row in TABLE for op in row.op.split()} == set()


def test_no_rule_is_written_down_for_an_op_that_does_not_exist() -> None:
    packets = {name: name.split(".") for name in rules.RULES}
    assert [name for name, (_, op, kind) in packets.items() if not hasattr(getattr(aten, op, None), kind)] == []


def test_ops_that_torch_calls_pointwise_have_an_entry_only_if_they_clip() -> None:
    assert [op for op in TAGGED if op in rules.RULES and rules.RULES[op].clips is None] == []


@pytest.mark.parametrize(
    "names", [("aten.linear.default",), ("aten.new.default", "aten.relu.default"), ("a", "b", "a")]
)
def test_an_op_that_has_a_rule_already_is_refused_and_nothing_is_registered(names: tuple[str, ...]) -> None:
    before = dict(rules.RULES)
    with pytest.raises(ValueError, match=f"{names[-1]} has a rule already"):
        register(*names)(rules.pointwise.pointwise)
    assert before == rules.RULES


@every_row
def test_the_op_has_a_rule_and_as_many_channels_may_go_as_the_table_says(index: int) -> None:
    targets = {str(node.target): node.target for node in grouped(index).labelled.graph.nodes}
    for op in TABLE[index].op.split():
        assert op in targets
        assert rules.find(targets[op]) is not None
    assert grouped(index).labelled.unknown == []
    free: Counter[str] = Counter()
    for each in grouped(index).prunable:
        free[each.name] += each.size
    assert dict(free) == TABLE[index].free


@every_row
def test_what_has_to_be_true_after_every_cut_is_true_after_the_smallest_and_a_random_one_and_none(index: int) -> None:
    groups = grouped(index)
    for seed, dropped in enumerate([drop_all_but(groups, TABLE[index].least), random_drop(groups, 1)]):
        alive = groups.alive(dropped)
        smaller = cut(groups.labelled, alive).graph
        assert_equals_masked(groups, alive, smaller, inputs(index, seed))
        assert_costs_as_predicted(groups, alive, smaller)
    assert_nothing_dropped_changes_nothing(groups, inputs(index))


class MatrixProducts(InFloat64):
    """Compares the results of layers with their `Columns` while the network runs."""

    def __init__(self, groups: Groups) -> None:
        labelled = groups.labelled
        super().__init__(labelled.graph.module)
        self._scored = {reader.node for reader in readers(groups)}
        self._layers = {each.node: each for each in labelled.contractions if each.weight or each.factor}
        self.compared: set[Node] = set()

    def run_node(self, n: Node) -> Any:
        whole = super().run_node(n)
        layer, rule = self._layers.get(n), rules.find(n.target)
        if layer is None or rule is None or rule.columns is None:
            return whole
        x = self.env[layer.x]
        if layer.factor is not None:
            if n in self._scored:
                self._compare_stack(n, x, self.env[layer.factor])
            return whole
        columns = rule.columns(n, x, self.env[layer.weight])
        product = torch.einsum("ngjrp,gojr->ngop", columns.x, columns.weight)
        self.env[layer.x] = torch.zeros_like(x)
        of_x = whole - super().run_node(n)
        self.env[layer.x] = x
        channels_first = of_x if "conv" in str(n.target) else of_x.movedim(-1, 1)
        torch.testing.assert_close(product.flatten(), channels_first.flatten())
        assert columns.x.shape[1] * columns.x.shape[2] == len(layer.labels)
        self.compared.add(n)
        return whole

    def _compare_stack(self, n: Node, x: Tensor, factor: Tensor) -> None:
        columns = rules.RULES[str(n.target)].columns(n, x, factor)
        product = torch.einsum("ngjrp,gojr->gpo", columns.x, columns.weight)
        expected = x @ (factor.mT if "attention" in str(n.target) else factor)
        torch.testing.assert_close(product, expected.flatten(0, -3))
        self.compared.add(n)


@rows(has_columns)
def test_a_layer_is_scored_on_the_matrix_product_that_it_computes(index: int) -> None:
    products = MatrixProducts(grouped(index))
    products.run(*[x.double() for x in inputs(index)])
    assert {reader.node for reader in readers(grouped(index))} <= products.compared
