"""Gram matrices: a layer is refitted alike from X'X and from the rows themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pfpcli.activations.gram_matrices import Gram, gram_batches
from pfpcli.activations.row_fits import StoredRows
from tasks import grouped, task


class Net(nn.Module):
    """Two convolutions on maps of 3 x 3; the second one reads 24 channels in two groups, that is, 108 columns."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 24, 3, padding=1), nn.Conv2d(24, 6, 3, padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


def seen(images: Tensor) -> Gram:
    """What the second convolution reads of some images."""
    torch.manual_seed(0)
    groups = grouped(Net().requires_grad_(False), images[:2])
    [[(_, [gram])]] = gram_batches(task(groups, images.split(5)), groups.prunable)
    return gram


@pytest.mark.parametrize(("images", "few"), [(1, True), (2, True), (7, True), (12, True), (13, False), (40, False)])
def test_few_rows_are_kept_as_they_are(images: int, few: bool) -> None:
    gram = seen(torch.randn(images, 3, 3, 3))
    assert [isinstance(half, StoredRows) for half in gram.halves] == [few, few]
    assert gram.centred.count.tolist() == 2 * [9 * images]


@pytest.mark.parametrize("images", [1, 2, 7, 12])
def test_a_layer_is_refitted_alike_in_both_forms(images: int) -> None:
    gram = seen(torch.randn(images, 3, 3, 3))
    as_equations = replace(gram, halves=tuple(half.centred for half in gram.halves))
    alive = [torch.ones(len(gram.reader.contraction.labels) + 100, dtype=torch.bool) for _ in range(3)]
    labels = gram.reader.contraction.labels.reshape(2, -1)
    for each, dropped in zip(alive, (2, 5, 9), strict=True):
        each[labels[:, :dropped]] = False
    for found, expected in zip(gram.refits(alive), as_equations.refits(alive), strict=True):
        torch.testing.assert_close(found.weight, expected.weight, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(found.bias, expected.bias, rtol=1e-3, atol=1e-4)
        assert found.error == pytest.approx(expected.error, rel=1e-3)
    np.testing.assert_allclose(gram.errors([alive]), as_equations.errors([alive]), rtol=1e-3)
    np.testing.assert_allclose(gram.errors([alive])[0], [refit.error for refit in gram.refits(alive)], rtol=1e-3)
