"""Which widths leave the layout in which onnxruntime computes convolutions on a CPU."""

from __future__ import annotations

import pytest

from pfpcli.records.parts import LayerRow
from pfpcli.report.unlucky_widths import remark


def layer(reads: int, makes: int, op: str = "conv2d", groups: int = 1) -> LayerRow:
    return LayerRow("a", op, (64, reads), (64, makes), (1, 1), (1, 1), (groups, groups))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (layer(61, 64), "width 61 leaves the blocked layout; 60 or 64 would not"),
        (layer(9, 64), "width 9 leaves the blocked layout; 8 or 12 would not"),
        (layer(32, 30, groups=2), "width 30 leaves the blocked layout; 28 or 32 would not"),
        (layer(3, 3, groups=3), "width 3 leaves the blocked layout; 4 would not"),
    ],
)
def test_a_width_that_leaves_the_layout_is_named_with_its_neighbours(made: LayerRow, said: str) -> None:
    assert remark(made) == said


@pytest.mark.parametrize(
    "made",
    [
        layer(60, 61),
        layer(3, 61),
        layer(7, 61),
        layer(61, 64, "linear"),
        layer(31, 32, groups=2),
        layer(8, 8, groups=8),
    ],
    ids=["multiple of 4", "an image", "less than a block", "no convolution", "grouped, makes 32", "depthwise"],
)
def test_no_other_layer_has_a_remark(made: LayerRow) -> None:
    assert remark(made) == ""
