"""Linear filter ensembles: masks that run together have the losses they have alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import from_program
from pfpcli.scoring.criteria import ensembles
from tasks import first, grouped, linear, of_zoo, scored, task
from zoo import Calls, conv

#: Many ops between them, and many ways in which a channel is read.
WITH_MANY_OPS = [
    "residual", "depthwise", "grouped", "se_gate", "flatten_linear", "linear_to_map", "shuffle", "two_heads", "conv1d",
    "writes_in_place", "spatial_gate", "norms", "attention", "biased_attention",
]  # fmt: skip


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "MASKS", 1)
    monkeypatch.setattr(ensembles, "FEWEST", 16)


def test_a_linear_loss_is_found_exactly() -> None:
    masks = np.asarray([*product([False, True], repeat=3)])
    weights, explained = ensembles.fit(masks, 1 - masks @ [0.5, 0.2, 0.05], ridges=[0])
    np.testing.assert_allclose(weights, [-0.5, -0.2, -0.05])
    assert explained == pytest.approx(1)
    assert np.argsort(weights).tolist() == [0, 1, 2]


def test_masks_of_a_pair_never_silence_the_same_channel() -> None:
    masks = ensembles.draw(1000, 20, np.random.default_rng(0))
    assert (masks[:500] | masks[500:]).all()
    assert abs((~masks).mean() - ensembles.OFF) < 0.02


class Counted:
    """Counts the runs of the nodes after the gates of an ensemble."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        run = ensembles.GatedNetwork.run

        def counted(*args: object, **kwargs: object) -> object:
            self.runs += 1
            return run(*args, **kwargs)

        monkeypatch.setattr(ensembles.GatedNetwork, "run", counted)

    def taken(self) -> int:
        """The runs since this was last asked."""
        runs, self.runs = self.runs, 0
        return runs


def losses(groups: Groups, images: Tensor, labels: np.ndarray | None) -> list[np.ndarray]:
    """The losses of the masks of each group, float64[T] each, without regression."""
    given, found = task(groups, [images]), []
    for one in groups.prunable:
        ensemble = ensembles._Ensemble.of(given, one, np.random.default_rng(0))
        run = ensembles.ValueRecorder(groups.labelled.graph, ensemble.gated.needed)
        with torch.no_grad():
            roles = ensembles.roles_of(groups.labelled.graph)
            whole = ensembles.select(ensembles.real(run.run(images)), roles)
            ensemble.measure(run.values, whole, roles, labels, len(images))
        found.append(ensemble.losses)
    return found


def joined_with_the_batch() -> nn.Module:
    """Channels and places that share a dimension with the batch, in front of it and behind it."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.second(m.first(x))
        y = (y.view(y.shape[0] * y.shape[1], *y.shape[2:]) * 2).view(y.shape)
        y = y.flatten(2).permute(2, 0, 1)  # places, batch, channels
        places, batch, channels = y.shape
        y = m.hidden(y.reshape(places * batch, channels)).relu()
        return m.head(y.reshape(places, batch, -1).mean(0))

    second = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    return Calls(forward, first=conv(3, 8), second=second, hidden=nn.Linear(8, 10), head=nn.Linear(10, 4))


def torchs_attention() -> nn.Module:
    """Torch's own has the batch behind the places."""
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Flatten(), nn.Linear(40, 4))


def fixed_batch() -> Groups:
    net, example = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).eval(), (torch.randn(5, 6),)
    return group(label(from_program(torch.export.export(net, example), example)))


FOLDED: dict[str, Callable[[], tuple[Groups, Tensor]]] = {
    **{name: partial(of_zoo, name) for name in WITH_MANY_OPS},
    "joined": lambda: (grouped(joined_with_the_batch(), torch.randn(2, 3, 8, 8)), torch.randn(5, 3, 8, 8)),
    "torch's attention": lambda: (grouped(torchs_attention(), torch.randn(2, 5, 8)), torch.randn(5, 5, 8)),
    "fixed batch": lambda: (fixed_batch(), torch.randn(5, 6)),
}


@pytest.mark.parametrize("name", FOLDED)
def test_masks_that_run_together_have_the_losses_they_have_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    groups, images = FOLDED[name]()
    assert groups.prunable
    counted = Counted(monkeypatch)
    for labels in (None, np.arange(5) % 2):
        monkeypatch.setattr(ensembles, "_LARGEST", {"cpu": 1})
        alone = losses(groups, images, labels)
        assert counted.taken() == sum(map(len, alone))
        monkeypatch.setattr(ensembles, "_LARGEST", {"cpu": 1 << 21})
        together = losses(groups, images, labels)
        assert counted.taken() == len(groups.prunable)  # one run each: nothing went back to one mask at a time
        for some, same in zip(together, alone, strict=True):
            assert np.ptp(same) > 0
            np.testing.assert_allclose(some, same, rtol=1e-4, atol=1e-6)


def test_masks_run_together_as_long_as_their_largest_tensor_is_small_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, images = of_zoo("plain")
    given = task(groups, [images])
    ensemble = ensembles._Ensemble.of(given, groups.prunable[0], np.random.default_rng(0))
    largest = 12 * 8 * 8 * len(images)  # what the second convolution makes
    monkeypatch.setattr(ensembles, "_LARGEST", {"cpu": 3 * largest})
    assert ensemble.masks_at_a_time(len(images)) == 3
    assert ensemble.masks_at_a_time(len(images) * 4) == 1


def test_masks_that_cannot_run_together_run_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    groups, images = of_zoo("residual")
    together = scored("lfe", groups, images).unit

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("not this op")

    monkeypatch.setattr(torch.func, "vmap", refuse)
    np.testing.assert_allclose(scored("lfe", groups, images).unit, together, rtol=1e-3, atol=1e-6)


def test_lfe_finds_what_each_channel_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "FEWEST", 128)
    # an output that decides nothing: (sum of what is missing)^2 over the whole one; channel 3 is worth nothing
    groups = grouped(linear([[4.0], [2.0], [1.0], [0.0]], [[1.0, 1.0, 1.0, 1.0]]), torch.rand(2, 1))
    found = first(groups, scored("lfe", groups, torch.rand(8, 1) + 0.5))
    assert np.argsort(found).tolist() == [3, 2, 1, 0]
    assert found[0] > 4 * found[2]


def test_lfe_says_where_its_model_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "FEWEST", 128)
    # two channels that cancel: either of them gone is a large change, both or none of them is none
    net = linear([[1.0], [1.0], [0.01]], [[9.0, -9.0, 1.0]])
    groups = grouped(net, torch.rand(2, 1))
    (remark,) = scored("lfe", groups, torch.rand(8, 1) + 0.5).remarks
    assert remark.startswith("the linear model of criterion lfe does not hold for 1 of 1 groups: 0 (R² ")
