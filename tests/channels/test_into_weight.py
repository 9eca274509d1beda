"""Numbers that belong to weights find their way from the matrix of a layer back to the weight tensor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfpcli.channels import rules
from pfpcli.channels.labelling import label
from pfpcli.channels.rules import Columns
from pfpcli.graph.trace import trace
from pfpcli.sparsity import sipp
from random_layer import generator
from zoo import Calls

LAYERS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "convolution": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), (2, 4, 6, 6), (6, 4, 3, 2)),
    "grouped": (lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 6, 6), (6, 2, 3, 3)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (2, 4, 5, 5), (4, 6, 3, 2)),
    "grouped transposed": (lambda x, w: F.conv_transpose1d(x, w, groups=2), (2, 4, 5), (4, 3, 3)),
    "linear": (F.linear, (2, 3, 4), (6, 4)),
    "transposed product": (torch.matmul, (2, 3, 4), (4, 6)),
    "scaled product": (lambda x, w: torch.ops.aten.addmm(x.new_zeros(6), x, w, alpha=-0.3), (3, 4), (4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_belongs_to_a_weight_finds_its_way_back(name: str) -> None:
    call, shape, sizes = LAYERS[name]
    x = torch.randn(shape, generator=generator())
    weight = torch.randn(sizes, generator=generator(1))
    graph = trace(Calls(lambda m, y: call(y, m.weight), weight=nn.Parameter(weight)), (x,))
    (contraction,) = [c for c in label(graph).contractions if c.weight is not None]
    rule = rules.find(contraction.node.target)

    def columns(w: Tensor) -> Columns:
        return rule.columns(contraction.node, x, w)

    s = sipp.weight_sensitivity(columns(weight), "max")
    with torch.no_grad():
        back = rules.into_weight(s, lambda w: columns(w).weight, weight)
    assert back.shape == weight.shape
    # a weight alone in its layer: the only place of its columns that is not zero holds its number
    for place in range(weight.numel()):
        alone = torch.zeros(weight.numel())
        alone[place] = 1
        there = columns(alone.view_as(weight)).weight != 0
        torch.testing.assert_close(back.flatten()[place], s[there][0], rtol=1e-6, atol=0)
        assert there.sum() == 1
    # masking the columns is masking the weight
    kept = (s > s.median()).float()
    masked = weight * rules.into_weight(kept, lambda w: columns(w).weight, weight)
    torch.testing.assert_close(columns(masked).weight, columns(weight).weight * kept, rtol=1e-6, atol=0)
