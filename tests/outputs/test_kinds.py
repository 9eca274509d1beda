"""Each kind of role: equal outputs lose nothing, and its quality and its losses are those of the field."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs import quality as qualities
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.kinds.classes import collapsed, edits
from pfpcli.outputs.kinds.kind import Judged
from pfpcli.outputs.kinds.pictures import ssim


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


#: Kind -> an output of it.
OUTPUTS: dict[str, Tensor] = {
    "logits": draw(6, 5),
    "probabilities": draw(6, 5, 4, 4).softmax(1),
    "sigmoid": draw(6, 9).sigmoid(),
    "image": draw(6, 3, 12, 12).sigmoid(),
    "embedding": F.normalize(draw(6, 16)),
    "boxes": draw(6, 20, 4),
    "regression": draw(6, 7),
}


def role(kind: str, axis: int | None = None) -> Role:
    return Role(0, "y", kind, axis or (1 if KINDS[kind].has_classes else None), "")


def judged(kind: str, before: Tensor, after: Tensor, axis: int | None = None, labels: object = None) -> Judged:
    tally = KINDS[kind].load().tally(role(kind, axis))
    half = len(before) // 2
    for some in (slice(0, half), slice(half, None)):
        tally.add(before[some], after[some], None if labels is None else np.asarray(labels)[some])
    tally.gather()
    return tally.judged()


def test_every_kind_has_an_output_here() -> None:
    assert set(OUTPUTS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_outputs_are_as_good_and_apart_by_nothing(kind: str) -> None:
    x, of = OUTPUTS[kind], KINDS[kind].load()
    found = judged(kind, x, x)
    assert found.after == pytest.approx(1, abs=1e-6)
    assert found.distance == 0
    axis = role(kind).axis
    assert float(of.divergence(x, x, axis, None)) == pytest.approx(0, abs=1e-4)
    assert float(of.training(x, x, axis)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_further_apart_the_worse(kind: str) -> None:
    x, of = OUTPUTS[kind], KINDS[kind].load()
    axis = role(kind).axis
    noise = draw(*x.shape, seed=1)

    def moved(by: float) -> Tensor:
        if kind == "probabilities":
            return (x.log() + by * noise).softmax(1)
        return (torch.logit(x) + by * noise).sigmoid() if kind in ("sigmoid", "image") else x + by * noise

    steps = [moved(by) for by in (0.1, 0.5, 2.0)]
    for measure in (lambda y: of.divergence(y, x, axis, None), lambda y: of.training(y, x, axis)):
        losses = [float(measure(y)) for y in steps]
        assert 0 < losses[0] < losses[1] < losses[2]
    found = [judged(kind, x, y) for y in steps]
    assert found[0].after >= found[1].after > found[2].after
    assert all(0 <= each.after <= 1 for each in found)


@pytest.mark.parametrize("kind", KINDS)
def test_losses_have_gradients_and_masks_of_the_original_do_not_count(kind: str) -> None:
    x, of = OUTPUTS[kind], KINDS[kind].load()
    axis = role(kind).axis
    y = (x * 0.9).requires_grad_()
    total = of.training(y, x, axis) + of.divergence(y, x, axis, None) + of.own_loss(y, axis, None).sum()
    first = of.likely(y, axis, 0)
    assert first is not None
    (slope,) = torch.autograd.grad(total + first, y)
    assert slope.isfinite().all()
    assert slope.abs().sum() > 0
    assert of.own_loss(y, axis, None).shape == (len(x),)
    if kind in ("logits", "regression"):
        masked = x.clone()
        masked[:, 2] = -math.inf
        assert float(of.divergence(masked, masked, axis, None)) == 0
        assert of.training(masked, masked, axis).isfinite()
        assert judged(kind, masked, masked).after == 1
        assert judged(kind, masked, torch.full_like(x, math.nan)).distance >= 1e9


def test_probabilities_diverge_as_their_logits_do() -> None:
    a, b = draw(4, 7), draw(4, 7, seed=1)
    logits, probabilities = (KINDS[kind].load() for kind in ("logits", "probabilities"))
    expected = F.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="sum")
    torch.testing.assert_close(logits.divergence(a, b, 1, None), expected)
    torch.testing.assert_close(probabilities.divergence(a.softmax(1), b.softmax(1), 1, None), expected)
    last = logits.divergence(a[:, None], b[:, None], 2, None)
    torch.testing.assert_close(last, expected)


def test_the_squared_slopes_of_independent_scores_are_their_fisher_information() -> None:
    z = draw(1, 4000, seed=5)
    z.requires_grad_()
    loss = KINDS["sigmoid"].load().likely(z.sigmoid(), None, 0)
    assert loss is not None
    (slope,) = torch.autograd.grad(loss, z)
    p = z.detach().sigmoid()
    assert float(slope.square().sum()) == pytest.approx(float((p * (1 - p)).sum() / p.sum()), rel=0.1)


def test_accuracy_counts_labels_and_agreement_counts_decisions() -> None:
    before = F.one_hot(torch.tensor([0, 1, 2, 3]), 12).float()
    after = F.one_hot(torch.tensor([0, 1, 3, 3]), 12).float()
    found = judged("logits", before, after, labels=[0, 1, 2, 2])
    assert (found.metric, found.before, found.after) == ("accuracy", 0.75, 0.5)
    assert found.measures["agreement"] == 0.75
    assert judged("logits", before, after).metric == "agreement"
    assert judged("logits", before, after, labels=[0, 1, 2, 99]).metric == "agreement"


def test_a_map_has_the_mean_overlap_of_its_classes() -> None:
    first, second = torch.zeros(2, 4, 4, dtype=torch.long), torch.zeros(2, 4, 4, dtype=torch.long)
    first[:, :2], second[:, :1] = 1, 1  # half of class 1 is lost
    a, b = (F.one_hot(x, 3).permute(0, 3, 1, 2).float() for x in (first, second))
    found = judged("logits", a, b)
    assert found.after == 0.75
    assert found.measures["mean IoU with the original's"] == pytest.approx((0.5 + 8 / 12) / 2)


def test_masks_judge_a_map_and_leave_out_pixels_without_a_class() -> None:
    truth = np.zeros((2, 8, 8), np.int64)
    truth[:, :4], truth[:, 7] = 1, 255
    first = torch.zeros(2, 4, 4, dtype=torch.long)
    first[:, :2] = 1
    second = torch.zeros(2, 4, 4, dtype=torch.long)
    a, b = (F.one_hot(x, 3).permute(0, 3, 1, 2).float() for x in (first, second))
    found = judged("logits", a, b, labels=truth)
    assert (found.metric, found.before) == ("mIoU", 1)
    assert found.after == pytest.approx((0 + 1 / 2) / 2)
    yes = (truth == 1).astype(np.int64)
    mask = first[:, None].float()
    assert judged("sigmoid", mask, mask / 4, labels=yes).before == 1
    assert judged("sigmoid", mask, mask / 4, labels=yes).after == 0


def test_target_images_judge_pictures() -> None:
    x = OUTPUTS["image"]
    found = judged("image", x + 0.1, x + 0.01, labels=x.numpy())
    assert found.before < found.after
    assert found.measures["PSNR to the targets before, dB"] == pytest.approx(20, abs=0.01)
    assert found.measures["PSNR to the targets after, dB"] == pytest.approx(40, abs=0.01)


def test_a_text_is_judged_by_its_characters() -> None:
    steps = {"hello": [0, 7, 7, 4, 0, 11, 0, 11, 14, 0], "hallo": [0, 7, 7, 1, 0, 11, 0, 11, 14, 0]}
    a, b = (F.one_hot(torch.tensor([each, each]), 26).float() for each in steps.values())
    found = judged("probabilities", a, b, axis=2)
    assert (found.metric, found.after) == ("characters", pytest.approx(0.8))
    assert collapsed(steps["hello"], 0) == [7, 4, 11, 11, 14]


@pytest.mark.parametrize(("a", "b", "count"), [("kitten", "sitting", 3), ("", "abc", 3), ("same", "same", 0)])
def test_edits_are_insertions_deletions_and_replacements(a: str, b: str, count: int) -> None:
    assert edits([*map(ord, a)], [*map(ord, b)]) == count


def test_edits_of_random_texts_are_those_of_the_recursive_definition() -> None:
    def slow(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))

    random = np.random.default_rng(0)
    for _ in range(60):
        a, b = (random.integers(0, 3, random.integers(0, 6)).tolist() for _ in range(2))
        assert edits(a, b) == slow(tuple(a), tuple(b)), (a, b)


def test_pictures_have_the_psnr_and_ssim_of_the_field() -> None:
    x = OUTPUTS["image"]
    y = x + 0.01
    assert judged("image", x, y).measures["PSNR, dB"] == pytest.approx(40, abs=0.01)
    assert judged("image", 255 * x, 255 * y).measures["PSNR, dB"] == pytest.approx(40, abs=0.01)
    torch.testing.assert_close(ssim(x, x), torch.ones(len(x)))
    flat = torch.full((1, 1, 9, 9), 0.5, dtype=torch.float64)
    mu, nu = 0.5, 0.7
    expected = (2 * mu * nu + 1e-4) / (mu**2 + nu**2 + 1e-4)  # structure and contrast are equal
    torch.testing.assert_close(ssim(flat, flat + 0.2), torch.tensor([expected], dtype=torch.float64))


def test_an_embedding_has_its_worst_cosine() -> None:
    x = OUTPUTS["embedding"]
    y = x.clone()
    y[3] = -y[3]
    found = judged("embedding", x, y)
    assert found.after == pytest.approx(4 / 6)
    assert found.measures["worst cosine"] == pytest.approx(-1)


def test_scores_overlap_where_both_say_yes() -> None:
    before, after = torch.zeros(2, 100), torch.zeros(2, 100)
    before[:, :40], after[:, 20:60] = 0.9, 0.9
    assert judged("sigmoid", before, after).after == pytest.approx(20 / 60)
    low = judged("sigmoid", before / 9, after / 9)  # no yes: the scores themselves
    assert low.after == pytest.approx(1 / 3, abs=0.01)


def test_numbers_have_the_fit_of_their_columns() -> None:
    x = draw(50, 2)
    y = x.clone()
    y[:, 1] = x[:, 1].mean()  # a constant tells nothing
    found = judged("regression", x, y)
    assert found.measures["R² (worst column)"] == pytest.approx(0, abs=1e-6)
    assert found.measures["R² (mean of columns)"] == pytest.approx(0.5, abs=1e-6)
    assert found.after == pytest.approx(1 - found.distance)


def test_the_headline_is_the_output_that_fell_most_unless_labels_say_that_all_is_well() -> None:
    roles = [Role(0, "class", "logits", 1, ""), Role(1, "more", "regression", None, "")]
    scores, numbers = F.one_hot(torch.arange(4), 5).float(), draw(4, 3)
    for by, metric in ((0.0, "accuracy"), (5.0, "similarity")):
        tallies = qualities.Tallies(roles, [(4, 5), (4, 3)])
        tallies.add(4, [scores, numbers], [scores, numbers + by], np.arange(4))
        found = tallies.quality("images")
        assert found.metric == metric
        assert found.outputs[0].name == found.output or not by
        assert {each.name for each in found.outputs} == {"class", "more"}


def test_a_process_without_images_gathers_the_same_counts_as_the_others() -> None:
    roles = [Role(0, "b", "boxes", None, ""), Role(1, "s", "sigmoid", None, "")]
    idle = qualities.Tallies(roles, [(1, 100, 4), (1, 100, 1)])
    assert len(idle._detectors) == 1
    assert idle.quality("images").n == 0
