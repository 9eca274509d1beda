"""The sensitivities and budgets of methods 7, statements 1 to 13, with their numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from micro_net import WEIGHT, linear
from pfpcli.channels.rules import Columns
from pfpcli.scoring import kernel, pfp


def sensitivity(points: list[list[float]] | Tensor, weight: Tensor = WEIGHT) -> Tensor:
    return pfp.sensitivity(linear(torch.as_tensor(points), weight))[0]


def reference(x: Tensor, weight: Tensor, reduce: str) -> Tensor:
    """The definition, one quotient after the other; x float[N, J, R, P], weight float[O, J, R]."""
    s = torch.zeros(x.shape[1])
    halves = [x.clamp(min=0), (-x).clamp(min=0)] if (x < 0).any() else [x]
    for a in halves:
        for w in (weight.clamp(min=0), (-weight).clamp(min=0)):
            for n in range(x.shape[0]):
                for o in range(weight.shape[0]):
                    for p in range(x.shape[3]):
                        terms = w[o] * a[n, :, :, p]
                        if terms.sum() > pfp.EPSILON:
                            share = terms / terms.sum()
                            s = torch.maximum(s, share.sum(1) if reduce == "sum" else share.amax(1))
    return s


def test_one_point() -> None:  # 1
    assert torch.equal(sensitivity([[1.0, 2, 3]]), torch.tensor([0.5, 1, 0.75]))


def test_more_data_can_only_raise_a_sensitivity_and_their_order_does_not_matter() -> None:  # 2
    points = [[1.0, 2, 3], [0.0, 1, 1]]
    assert torch.equal(sensitivity(points), torch.tensor([0.5, 1, 1]))
    assert torch.equal(sensitivity(points[::-1] + points), torch.tensor([0.5, 1, 1]))
    many = torch.randn(20, 3)
    assert (sensitivity(many) >= sensitivity(many[:7])).all()


def test_inputs_of_mixed_sign_are_two_points() -> None:  # 3
    assert torch.equal(sensitivity([[1.0, -2, 3]]), torch.tensor([1, 1, 0.75]))


def test_what_a_sensitivity_does_not_depend_on() -> None:  # 4
    x, w = torch.rand(9, 6), torch.randn(4, 6)
    s = sensitivity(x, w)
    close = {"rtol": 2e-5, "atol": 0}
    torch.testing.assert_close(sensitivity(7.5 * x, w), s, **close)
    torch.testing.assert_close(sensitivity(x, torch.tensor([[0.1], [3], [20], [1]]) * w), s, **close)
    torch.testing.assert_close(sensitivity(x, w[[2, 0, 3, 1]]), s, **close)
    order = torch.randperm(6)
    torch.testing.assert_close(sensitivity(x[:, order], w[:, order]), s[order], **close)
    t = torch.rand(6) + 0.5
    torch.testing.assert_close(sensitivity(x * t, w / t), s, **close)


def test_dead_channels_have_none_and_a_single_channel_has_all() -> None:  # 5
    x, w = torch.rand(9, 4), torch.randn(3, 4)
    x[:, 1] = 0
    w[:, 2] = 0
    s = sensitivity(x, w)
    assert s[1] == s[2] == 0
    assert ((s >= 0) & (s <= 1 + 1e-6)).all()
    assert sensitivity(torch.rand(5, 1) + 0.1, torch.ones(2, 1)) == 1
    assert (sensitivity(torch.zeros(5, 3)) == 0).all()
    assert (sensitivity(1e-9 * torch.ones(5, 3)) == 0).all()


def test_a_convolution_is_judged_at_every_patch() -> None:  # 6
    x = torch.tensor([[1.0, 0], [1.0, 2]])[None, None, :, None, :]
    assert torch.equal(pfp.sensitivity(Columns(x, torch.ones(1, 1, 2, 1)))[0], torch.tensor([0.5, 1]))


@pytest.mark.parametrize(("reduce", "expected"), [("sum", 1 / 2), ("max", 1 / 18)])
def test_a_channel_has_the_share_of_its_whole_kernel_or_of_its_largest_weight(
    reduce: str, expected: float
) -> None:  # 7
    columns = Columns(torch.ones(1, 1, 2, 9, 1), torch.ones(1, 1, 2, 9))
    torch.testing.assert_close(pfp.sensitivity(columns, reduce), torch.full((1, 2), expected))


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_blocks_and_chunks_give_what_the_definition_gives(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:  # 8
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 5, 4, 7, generator=generator)
    weight = torch.randn(6, 5, 4, generator=generator)
    expected = reference(x, weight, reduce)
    monkeypatch.setattr(pfp, "largest_shares", lambda x: None)
    for block in (1, 16, 100, 1 << 19):
        monkeypatch.setitem(pfp._BLOCK, "cpu", block)
        found = pfp.sensitivity(Columns(x[:, None], weight[None]), reduce)[0]
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


@pytest.mark.skipif(kernel.about() != "compiled", reason="there is no C++ compiler here")
@pytest.mark.parametrize(
    "sizes", [(1, 5, 4, 1, 7), (3, 5, 4, 9, 64), (2, 33, 20, 9, 130), (1, 3, 7, 25, 200), (4, 1, 6, 4, 1)]
)
def test_the_compiled_kernel_gives_what_torch_gives(sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    groups, channels, outputs, positions, patches = sizes
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, groups, channels, positions, patches, generator=generator)
    weight = torch.randn(groups, outputs, channels, positions, generator=generator)
    weight[:, 0], x[0, :, 0] = 0, 0
    found = pfp.sensitivity(Columns(x, weight))
    monkeypatch.setattr(pfp, "largest_shares", lambda x: None)
    torch.testing.assert_close(found, pfp.sensitivity(Columns(x, weight)), rtol=2e-5, atol=0)


@pytest.fixture(scope="module", params=[(), ("-march=native",)], ids=["any processor", "this processor"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The compiled kernel, built with some flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return kernel._loaded(request.param)


@pytest.mark.skipif(kernel.about() != "compiled", reason="there is no C++ compiler here")
@pytest.mark.parametrize(
    "sizes", [(1, 5, 4, 1, 7), (3, 5, 4, 9, 64), (2, 33, 40, 9, 1300), (1, 3, 17, 25, 200), (4, 1, 6, 4, 1)]
)
def test_shares_that_are_skipped_do_not_change_a_bit(
    sizes: tuple[int, ...], library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library is not None
    monkeypatch.setattr(kernel, "_library", lambda: library)
    groups, channels, outputs, positions, patches = sizes
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(groups, channels, positions, patches, generator=generator).relu()
    weight = torch.randn(groups, outputs, channels, positions, generator=generator)
    inverses = [pfp.inverse(sign.flatten(2) @ x.flatten(1, 2)) for sign in (weight.relu(), weight.neg().relu())]
    none = torch.zeros(groups, channels)
    every = kernel._largest_shares(x, weight, *inverses, none, bounded=False)
    assert torch.equal(kernel._largest_shares(x, weight, *inverses, none), every)
    # what is known may be the largest share itself, or just below or above it
    for known in (every, torch.nextafter(every, none), torch.nextafter(every, none + 2)):
        found = kernel._largest_shares(x, weight, *inverses, known)
        assert torch.equal(found.clamp(max=1), torch.maximum(known, every).clamp(max=1))


@pytest.mark.parametrize("reduce", ["sum", "max"])
def test_what_is_known_of_other_inputs_counts(reduce: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(1, 6, 5, 4, generator=generator)
    some, others = (Columns(torch.randn(3, 1, 5, 4, 7, generator=generator), weight) for _ in range(2))
    one_by_one = pfp.sensitivity(others, reduce, pfp.sensitivity(some, reduce))
    together = pfp.sensitivity(Columns(torch.cat([some.x, others.x]), weight), reduce)
    torch.testing.assert_close(one_by_one, together, rtol=2e-6, atol=0)


def test_without_a_compiler_torch_alone_computes_the_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(kernel, "_library", kernel._library.__wrapped__)
    assert kernel.about() == "torch (no C++ compiler found)"
    assert torch.equal(sensitivity([[1.0, 2, 3]]), torch.tensor([0.5, 1, 0.75]))


def test_sample_counts_that_the_bernstein_bound_asks_for() -> None:  # 9, the self-contained form
    found = [
        pfp.enough_draws(epsilon, 2.25, 3, delta)
        for epsilon, delta in ((0.2, 0.1), (0.2, 0.01), (0.5, 0.1), (0.5, 0.01))
    ]
    assert found == [492, 768, 86, 135]


def test_sample_counts_of_the_authors() -> None:  # 1.4
    log = pfp.log_term(1, 1)
    assert log == pytest.approx(237.68, abs=0.005)
    assert [pfp.sample_count(epsilon, 2.25, log) for epsilon in (0.5, 2)] == [44923, 4011]


def test_expected_numbers_of_distinct_channels() -> None:  # 10
    assert pfp.expected_distinct(np.array([0.2, 0.4, 0.4]), 3) == pytest.approx(2.056)
    q = np.array([2, 4, 3]) / 9
    found = [pfp.expected_distinct(q, m) for m in range(1, 9)]
    assert found == pytest.approx([1, 1.642, 2.0617, 2.3413, 2.5308, 2.6614, 2.753, 2.818], abs=5e-4)


def test_the_error_on_the_calibration_set_is_at_most_the_sum_of_what_was_dropped() -> None:  # 11
    x, w = torch.rand(30, 8), torch.randn(5, 8).clamp(min=0)
    s = sensitivity(x, w)
    drop = s.argsort()[:3]
    whole, lost = x @ w.T, x[:, drop] @ w[:, drop].T
    assert (lost <= s[drop].sum() * whole * (1 + 1e-5)).all()
    assert sensitivity([[1.0, 2, 3]])[0] == 1 * 2 / (1 * 2 + 2 * 1)  # row 1 loses exactly that


def test_sizes_of_the_calibration_set() -> None:  # 12
    resnet20 = [16384] * 7 + [8192] * 6 + [4096] * 6 + [8192, 4096, 10]
    assert sum(resnet20) == 200_714
    assert pfp.set_size(resnet20) == 183
    lenet = [300, 100, 10]
    deltas = [10, 1, 0.1, 0.01, 1e-4, 1e-14, 1e-16, 1e-20, 1e-32]
    assert [pfp.set_size(lenet, d) for d in deltas] == [35, 42, 49, 56, 70, 139, 152, 180, 263]


def test_fewer_channels_are_kept_as_epsilon_grows() -> None:  # 13
    s = np.random.default_rng(0).random(40)
    kept = [pfp.kept_count(s, epsilon, 240.0) for epsilon in np.logspace(-20, 15, 200)]
    assert kept[0] == 40
    assert kept[-1] == 1
    assert all(a >= b for a, b in itertools.pairwise(kept))


def test_channels_that_never_fire_go_before_all_others_but_not_from_a_full_budget() -> None:
    s = np.array([0.5, 0.0, 0.4, 0.0])
    assert pfp.kept_count(s, 1e-20, 240.0) == 4
    assert pfp.kept_count(s, 1e-3, 240.0) == 2


def test_the_error_of_a_count_is_the_smallest_that_keeps_so_many() -> None:
    sensitivities = np.array([0.9, 0.5, 0.4, 0.1, 0.05, 0.01])
    for count in range(1, 6):
        epsilon = pfp.error_of_count(sensitivities, count, 40.0)
        assert pfp.kept_count(sensitivities, epsilon, 40.0) <= count
        assert pfp.kept_count(sensitivities, epsilon * 0.999, 40.0) > count
