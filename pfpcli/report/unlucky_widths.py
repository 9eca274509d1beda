"""Unlucky widths: numbers of channels at which a convolution is slower in onnxruntime than at the next larger one.

On a CPU, onnxruntime runs convolutions in a layout of blocks of channels. A convolution enters that layout

    with one group       if it reads fewer channels than a block, or a multiple of 4,
    with several groups  if it makes a multiple of 4 (depthwise ones have as many groups as channels).

Otherwise it is computed outside of the layout, and its input and its output are reordered. Source: onnxruntime,
core/optimizer/nchwc_transformer.cc.
"""

from __future__ import annotations

from pfpcli.records.parts import LayerRow

#: Widths that are a multiple of this stay in the layout.
MULTIPLE = 4
#: The smallest block; it is 16 channels on CPUs with AVX-512.
BLOCK = 8


def is_unlucky(width: int, groups: int = 1) -> bool:
    """Return whether a two-dimensional convolution leaves the layout of blocks.

    Args:
        width: number of channels that it reads; of one with several groups, the number that it makes.
        groups: number of its groups.
    """
    return width % MULTIPLE != 0 and (groups > 1 or width >= BLOCK)


def remark(layer: LayerRow) -> str:
    """Return `width 61 leaves the blocked layout; 60 or 64 would not` for a layer of the result, or ""."""
    groups = layer.groups[1]
    width = (layer.channels_in if groups == 1 else layer.channels_out)[1]
    if layer.op != "conv2d" or not is_unlucky(width, groups):
        return ""
    below = width - width % MULTIPLE
    others = f"{below} or {below + MULTIPLE}" if below else str(MULTIPLE)
    return f"width {width} leaves the blocked layout; {others} would not"
