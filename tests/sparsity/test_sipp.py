"""The sensitivity of single weights, and the bound on the error of a layer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from micro_net import linear
from pfpcli.channels.rules import Columns
from pfpcli.cutting.certificate import measured_error
from pfpcli.scoring import pfp
from pfpcli.sparsity import sipp
from random_layer import a_layer, generator, most_sensitive


def reference(columns: Columns, patches: str) -> Tensor:
    """The definition, one quotient after the other."""
    x, weight = columns.x.flatten(2, 3), columns.weight.flatten(2)
    s = torch.zeros_like(weight)
    halves = [x.clamp(min=0), (-x).clamp(min=0)] if (x < 0).any() else [x]
    for a, w in itertools.product(halves, (weight.clamp(min=0), (-weight).clamp(min=0))):
        for n, g, o in np.ndindex(len(x), *w.shape[:2]):
            terms = w[g, o, :, None] * a[n, g]
            z = terms.sum(0)
            shares = torch.where(z > pfp.EPSILON, terms / z, 0)
            s[g, o] = torch.maximum(s[g, o], shares.amax(1) if patches == "max" else shares.mean(1))
    return s.view_as(columns.weight)


@pytest.mark.parametrize("patches", ["max", "mean"])
def test_the_weights_of_the_micro_net(patches: str) -> None:  # 1
    s = sipp.weight_sensitivity(linear(torch.tensor([[1.0, 2, 3]])), patches)[0, :, :, 0]
    assert torch.equal(s, torch.tensor([[0.5, 0.5, 0], [0.25, 1, 0.75]]))
    # with one kernel position the sensitivity of a channel is that of its most sensitive weight
    assert torch.equal(s.amax(0), pfp.sensitivity(linear(torch.tensor([[1.0, 2, 3]])))[0])


def test_more_data_can_only_raise_the_sensitivity_of_a_weight() -> None:  # 2
    columns = a_layer(20, signed=True)
    few = Columns(columns.x[:7], columns.weight)
    rest = Columns(columns.x[7:], columns.weight)
    for patches in ("max", "mean"):
        found = [sipp.weight_sensitivity(each, patches) for each in (columns, few, rest)]
        torch.testing.assert_close(found[0], torch.maximum(found[1], found[2]), rtol=2e-5, atol=0)


def test_inputs_of_mixed_sign_are_two_points() -> None:  # 3
    s = sipp.weight_sensitivity(linear(torch.tensor([[1.0, -2, 3]])), "max")[0, :, :, 0]
    assert torch.equal(s, torch.tensor([[1.0, 1, 0], [0.25, 1, 0.75]]))


def test_what_the_sensitivity_of_a_weight_does_not_depend_on() -> None:  # 4
    columns = a_layer()
    for patches in ("max", "mean"):
        s = sipp.weight_sensitivity(columns, patches)
        close = {"rtol": 2e-5, "atol": 0}
        torch.testing.assert_close(
            sipp.weight_sensitivity(Columns(7.5 * columns.x, columns.weight), patches), s, **close
        )
        scale = torch.tensor([0.1, 3, 20, 1, 8])[:, None, None]
        torch.testing.assert_close(
            sipp.weight_sensitivity(Columns(columns.x, scale * columns.weight), patches), s, **close
        )
        t = torch.rand(7, 1, generator=generator()) + 0.5
        moved = Columns(columns.x * t[..., None], columns.weight / t)
        torch.testing.assert_close(sipp.weight_sensitivity(moved, patches), s, **close)


@pytest.mark.parametrize("patches", ["max", "mean"])
def test_weights_that_never_matter_have_none_and_no_sensitivity_is_above_one(patches: str) -> None:  # 5
    columns = a_layer(groups=2, signed=True)
    columns.x[:, :, 1] = 0
    columns.weight[:, :, 2] = 0
    s = sipp.weight_sensitivity(columns, patches)
    assert (s[:, :, 1:3] == 0).all()
    assert ((s >= 0) & (s <= 1 + 1e-6)).all()
    assert (sipp.weight_sensitivity(Columns(1e-9 * columns.x, columns.weight), patches) == 0).all()


@pytest.mark.parametrize(("patches", "expected"), [("max", [0.5, 1]), ("mean", [0.25, 0.75])])
def test_patches_are_judged_one_by_one_or_on_average(patches: str, expected: list[float]) -> None:  # 6
    x = torch.tensor([[1.0, 0], [1.0, 2]])[None, None, :, None, :]
    s = sipp.weight_sensitivity(Columns(x, torch.ones(1, 1, 2, 1)), patches)
    assert torch.equal(s.flatten(), torch.tensor(expected))


def test_every_weight_of_a_kernel_has_a_share_of_its_own() -> None:  # 7
    columns = Columns(torch.ones(1, 1, 2, 9, 1), torch.ones(1, 1, 2, 9))
    for patches in ("max", "mean"):
        torch.testing.assert_close(sipp.weight_sensitivity(columns, patches), torch.full((1, 1, 2, 9), 1 / 18))


@pytest.mark.parametrize("patches", ["max", "mean"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("samples", [1, 6])  # fewer and more positions than a row has weights
def test_blocks_give_what_the_definition_gives(
    patches: str, signed: bool, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # 8
    columns = a_layer(samples, groups=3, signed=signed)
    columns.x[:, :, :, :, 2] = 0  # a patch without anything
    expected = reference(columns, patches)
    for block in (1, 100, 700, 5000, 1 << 20):
        monkeypatch.setitem(pfp._BLOCK, "cpu", block)
        torch.testing.assert_close(sipp.weight_sensitivity(columns, patches), expected, rtol=2e-5, atol=0)


@pytest.mark.parametrize("budget", [0, 20, 70, 120])
def test_no_output_loses_more_than_the_sensitivities_its_row_drops(budget: int) -> None:  # 11
    columns = a_layer(30, groups=2, signed=True)
    s, kept = most_sensitive(columns, budget)
    bound = sipp.certificate(columns.weight, s, kept)
    for part in pfp.halves(columns.x):
        for sign, own in enumerate((columns.weight.clamp(min=0), columns.weight.neg().clamp(min=0))):
            one_sign = measured_error(Columns(part, own), own * kept)
            assert (one_sign <= bound[sign] * (1 + 1e-5)).all()
            assert one_sign.max() > 0
    both = measured_error(columns, columns.weight * kept)
    assert (both <= bound.amax(0) * (1 + 1e-5)).all()


def test_the_certificate_and_the_error_of_the_micro_net() -> None:  # 11
    columns = linear(torch.tensor([[1.0, 2, 3]]))
    kept = torch.tensor([[True, False, True], [True, True, True]])[None, :, :, None]
    s = sipp.weight_sensitivity(columns, "max")
    assert sipp.certificate(columns.weight, s, kept).tolist() == [[[0.5, 0]], [[0, 0]]]
    assert measured_error(columns, columns.weight * kept).tolist() == [[0.5, 0]]
    elsewhere = linear(torch.tensor([[1.0, 8, 3], [0, 0, 0]]))
    assert torch.equal(measured_error(elsewhere, columns.weight * kept), torch.tensor([[0.8, 0]]))
