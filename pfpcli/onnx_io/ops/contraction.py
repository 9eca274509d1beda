"""Rules of ops that sum over channels: convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.calls import bind
from pfpcli.onnx_io.ops.call import Call
from pfpcli.onnx_io.ops.tables import NodeEdit, Result, register, rewriter

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True)
class Window:
    """A window that slides over an image: sizes, strides and dilations, one number for each spatial dimension."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]

    @classmethod
    def of(cls, call: Call, kernel: Sequence[int]) -> Window:
        """Read the window of a node.

        Args:
            call: the node.
            kernel: sizes of the window.
        """
        strides, dilations = (call.attribute(name) or [1] * len(kernel) for name in ("strides", "dilations"))
        return cls([*kernel], [*strides], [*dilations])

    @property
    def spans(self) -> list[int]:
        """Sizes of the window with its dilation: (kernel - 1) * dilation + 1."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    def padding(self, call: Call, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Compute the padding before and after the image in each spatial dimension.

        Args:
            call: the node.
            sizes: spatial sizes of the image.
        """
        auto, rank = call.attribute("auto_pad", "NOTSET"), len(self.kernel)
        if auto in ("NOTSET", ""):
            pads = call.attribute("pads") or [0] * (2 * rank)
            return list(zip(pads[:rank], pads[rank:], strict=True))
        if auto == "VALID":
            return [(0, 0)] * rank
        # SAME: the output has ceil(size / stride) elements
        ends = [(-(-size // step) - 1) * step for size, step in zip(sizes, self.strides, strict=True)]
        missing = [max(0, end + span - size) for end, span, size in zip(ends, self.spans, sizes, strict=True)]
        return [(n // 2, n - n // 2) if auto == "SAME_UPPER" else (n - n // 2, n // 2) for n in missing]


def padded(x: Tensor, pads: list[tuple[int, int]], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """Add to an image the part of its padding that the op cannot add itself.

    Args:
        x: float[N, C, ...].
        pads: (before, after) for each spatial dimension.
        value: the number to pad with.

    Returns:
        The padded image, and the symmetric padding that is left for the op.
    """
    both = [min(pair) for pair in pads]
    rest = [(low - least, high - least) for (low, high), least in zip(pads, both, strict=True)]
    if any(low or high for low, high in rest):
        # asymmetric: all of the padding is added here, as the op may pad with another number than `value`
        x, both = F.pad(x, [n for pair in reversed(pads) for n in pair], value=value), [0] * len(pads)
    return x, both


@register("Conv")
def conv(call: Call) -> Tensor:
    """Compute a convolution."""
    x, weight = call.tensor(0), call.tensor(1)
    window = Window.of(call, weight.shape[2:])
    x, pads = padded(x, window.padding(call, x.shape[2:]))
    op = _CONV[weight.dim() - 2]
    return op(x, weight, call.optional(2), window.strides, pads, window.dilations, call.attribute("group", 1))


@register("ConvTranspose")
def _conv_transpose(call: Call) -> Result:
    x, weight = call.tensor(0), call.tensor(1)
    rank = weight.dim() - 2
    window = Window.of(call, weight.shape[2:])
    strides, dilations = window.strides, window.dilations
    more = call.attribute("output_padding") or [0] * rank
    parts = zip(x.shape[2:], strides, window.spans, more, strict=True)
    full = [(size - 1) * step + span + extra for size, step, span, extra in parts]
    auto, wanted = call.attribute("auto_pad", "NOTSET"), call.attribute("output_shape")
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * s for size, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = call.attribute("pads") or [0] * (2 * rank)
        ends = list(zip(pads[:rank], pads[rank:], strict=True))
    else:
        cut = [a - b for a, b in zip(full, wanted[-rank:], strict=True)]
        halves = [(c // 2, c - c // 2) for c in cut]
        # an odd element is cut off at the end for SAME_UPPER, else at the start
        ends = halves if auto == "SAME_UPPER" else [(b, a) for a, b in halves]
    both = [max(0, min(pair)) for pair in ends]
    y = _TRANSPOSED[rank](x, weight, call.optional(2), strides, both, more, call.attribute("group", 1), dilations)
    for dim, ((low, high), least) in enumerate(zip(ends, both, strict=True), 2):
        if (low, high) != (least, least):
            y = F.pad(y, [0, 0] * (y.dim() - 1 - dim) + [least - low, least - high])
    return y


@rewriter("Conv", "ConvTranspose")
def rewrite_groups(edit: NodeEdit) -> None:
    """Set the number of groups."""
    edit.set_attribute("group", bind(edit.call("conv"))["groups"])


@register("Gemm")
def gemm(call: Call) -> Tensor:
    """Compute a product of matrices, plus a third one."""
    a, b, c = call.tensor(0), call.tensor(1), call.optional(2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    a = a.t() if call.attribute("transA", 0) else a
    if alpha == 1 and beta == 1 and call.attribute("transB", 0) and (c is None or c.shape == (b.shape[0],)):
        return F.linear(a, b, c)
    product = a @ (b.t() if call.attribute("transB", 0) else b)
    product = product if alpha == 1 else alpha * product
    return product if c is None else product + (c if beta == 1 else beta * c)


@register("MatMul")
def _matmul(call: Call) -> Result:
    return torch.matmul(call.tensor(0), call.tensor(1))


@register("Einsum")
def _einsum(call: Call) -> Result:
    return torch.einsum(call.attribute("equation"), *call.tensors())
