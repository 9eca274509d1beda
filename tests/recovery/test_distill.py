"""Distillation: a cut network learns from its original without labels, and is never worse for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.images.calibration import Calibration, Division
from pfpcli.images.folder import open_folder
from pfpcli.images.preprocess import preprocessing
from pfpcli.models.load import load
from pfpcli.recovery import augment, distill, stream, train
from pfpcli.settings import Calibrated
from properties import random_drop
from zoo import ZOO, Calls, conv, head

SAMPLES = Path(__file__).parents[2] / "samples"


@dataclass(frozen=True)
class Case:
    """A network, what is left of it, and images."""

    whole: Graph
    kept: Slicing
    smaller: Graph
    division: Division

    def distill(self, epochs: int = 2, **settings: Any) -> distill.Distilled:
        how = {"minutes": None, "device": torch.device("cpu"), "seed": 0, **settings}
        return distill.distill(Cut(self.kept, self.smaller), self.division, epochs=epochs, **how)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.smaller.module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def divided(folder: Path, size: tuple[int, ...]) -> Division:
    images = open_folder(folder, size)
    settings = Calibrated(model=Path("model.pt"), calib=folder)
    return Calibration(images, None, size, preprocessing(settings, arrays=images.arrays), False, 0).divide(8, None)


def case(module: nn.Module, folder: Path, seed: int = 0, **changes: Any) -> Case:
    """A network of 8 × 8 images without some of its channels, and 60 images of noise."""
    graph = replace(trace(module, (torch.randn(2, 3, 8, 8),)), **changes)
    groups = group(label(graph))
    alive = groups.alive(random_drop(groups, seed))
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((60, 3, 8, 8), np.float32))
    return Case(graph, *cut(groups.labelled, alive), divided(folder, (3, 8, 8)))


def undecided() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 12), conv(12, 12), nn.Conv2d(12, 1, 1)).eval()


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def test_the_sample_network_agrees_more_with_its_original_afterwards() -> None:
    graph = trace(load(SAMPLES / "model.pt").module, (torch.randn(2, 3, 32, 32),))
    groups = group(label(graph))
    rows = [row for each in groups.prunable for row in each.rows]
    alive = groups.alive(np.concatenate([row[: len(row) // 4] for row in rows]))
    division = divided(SAMPLES / "images", (3, 32, 32))
    made = Case(graph, *cut(groups.labelled, alive), division)
    before = distill.agreement(graph, made.smaller, division.judging())
    found = made.distill(epochs=5)
    assert found.has_helped
    assert found.after > found.before + 0.1
    assert found.images == len(division.fitted)
    assert distill.agreement(graph, made.smaller, division.judging()) > before + 0.1


def test_what_does_not_get_better_stays_as_it_was(small: Case) -> None:
    before = small.tensors()
    found = small.distill(rate=1e6)
    assert not found.has_helped
    assert found.after == found.before
    assert same(small.tensors(), before)


@pytest.mark.parametrize("net", [name for name, net in ZOO.items() if net.inputs == ((3, 8, 8),)])
def test_no_network_of_the_zoo_is_worse_afterwards(net: str, tmp_path: Path) -> None:
    made = case(ZOO[net].module(), tmp_path)
    before = distill.agreement(made.whole, made.smaller, made.division.checking())
    found = made.distill(epochs=1)
    assert found.before == pytest.approx(before)
    assert found.after >= found.before
    assert distill.agreement(made.whole, made.smaller, made.division.checking()) == pytest.approx(found.after)


def test_a_network_without_decisions_comes_closer(small: Case) -> None:
    found = small.distill(epochs=4)
    assert found.has_helped
    assert found.after > found.before


def test_a_network_of_several_outputs_learns_from_all_of_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    parts = {"stem": conv(3, 12), "body": conv(12, 12), "out": head(12), "map": nn.Conv2d(12, 1, 1)}
    made = case(Calls(lambda m, x: {"a": m.out(y := m.body(m.stem(x))), "b": m.map(y)}, **parts).eval(), tmp_path)
    x = torch.randn(8, 3, 8, 8)

    def distance(name: str) -> float:
        with torch.no_grad():
            return float((made.whole.module(x)[name] - made.smaller.module(x)[name]).square().mean())

    before = {name: distance(name) for name in "ab"}
    loss = distill._Task(Cut(made.kept, made.smaller))
    generator = torch.Generator().manual_seed(0)
    with train.trainable(made.smaller) as tensors:
        optimizer = torch.optim.SGD(tensors.values(), 0.02)
        for _ in range(30):
            optimizer.zero_grad()
            loss.loss(x, None, generator).backward()
            optimizer.step()
    assert all(distance(name) < before[name] for name in "ab")


def test_a_fixed_batch_is_kept_to(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path, dynamic=False)
    sizes: set[int] = set()
    made.smaller.module.register_forward_pre_hook(lambda _, inputs: sizes.add(len(inputs[0])))
    found = made.distill(epochs=2)
    assert found.after > found.before
    assert sizes == {2}


def test_a_batch_larger_than_all_images_is_filled_with_repetitions(tmp_path: Path) -> None:
    made = case(undecided(), tmp_path)
    images = stream.Stream(made.division.calibration, np.arange(3), 8, fixed=True, seed=0)
    assert [len(x) for x, _ in images.epoch(0)] == [8]


def test_flags_and_kinds_of_tensors_are_as_they_were(small: Case) -> None:
    module = small.smaller.module
    first, *others = module.parameters()
    first.requires_grad_(False)
    buffers, parameters = list(dict(module.named_buffers())), list(dict(module.named_parameters()))
    small.distill(epochs=1)
    assert list(dict(module.named_buffers())) == buffers
    assert list(dict(module.named_parameters())) == parameters
    assert [each.requires_grad for each in module.parameters()] == [False] + [True] * len(others)
    assert all(each.grad is None for each in module.parameters())


def test_weights_that_are_buffers_are_trained_too() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(4, 3, 3, 3))
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(nn.functional.conv2d(x, self.weight))

    graph = trace(Held().eval(), (torch.randn(2, 3, 8, 8),))
    with train.trainable(graph) as tensors:
        assert set(tensors) == {"weight", "norm.weight", "norm.bias"}
        assert isinstance(graph.module.weight, nn.Parameter)
    assert not isinstance(graph.module.weight, nn.Parameter)
    assert not graph.module.weight.requires_grad


# --- interrupts ----------------------------------------------------------------------------------------------------


def interrupt_after(calls: int) -> Callable[[float, float], None]:
    left = iter(range(calls))

    def progress(done: float, figure: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("calls", [0, 4, 10])
def test_training_that_was_interrupted_ends_as_if_it_had_not_been(
    calls: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill, "BATCH", 16)
    straight, broken = case(undecided(), tmp_path), case(undecided(), tmp_path)
    expected = straight.distill(epochs=4)
    state = tmp_path / "cache" / "some.training"
    before = broken.tensors()
    with pytest.raises(KeyboardInterrupt):
        broken.distill(epochs=4, state=state, progress=interrupt_after(calls))
    assert not same(broken.tensors(), before)
    broken.smaller.module.load_state_dict(before)  # as after loading the model again
    found = broken.distill(epochs=4, state=state)
    assert (found.epochs, found.before, found.after) == (expected.epochs, expected.before, expected.after)
    assert found.epochs == 4
    assert same(broken.tensors(), straight.tensors())
    assert list(state.parent.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no zip archive", None])
def test_a_state_that_does_not_fit_is_not_there(content: bytes | None, small: Case, tmp_path: Path) -> None:
    state = tmp_path / "some.training"
    if content is None:
        torch.save({"now": {"another": torch.zeros(1)}}, state)
    else:
        state.write_bytes(content)
    assert small.distill(epochs=1, state=state).epochs == 1
    assert not state.exists()


def test_time_is_a_limit_as_well(small: Case) -> None:
    found = small.distill(epochs=None, minutes=0.01)  # type: ignore[arg-type]
    assert found.epochs > 0
    assert found.seconds > 0


# --- what is trained on --------------------------------------------------------------------------------------------


def test_each_epoch_has_another_order_and_can_be_entered_in_the_middle(small: Case) -> None:
    images = stream.Stream(small.division.calibration, small.division.fitted, 7, fixed=False, seed=3)
    first, second = ([x for x, _ in images.epoch(number)] for number in (0, 1))
    assert not torch.equal(first[0], second[0])
    assert torch.equal(torch.cat(first).sum((1, 2, 3)).sort().values, torch.cat(second).sum((1, 2, 3)).sort().values)
    assert all(torch.equal(a, b) for a, (b, _) in zip(first[2:], images.epoch(0, 2), strict=True))
    assert len(images) == len(first)


def test_images_that_do_not_fit_in_memory_come_in_the_same_order(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def batches() -> list[Tensor]:
        images = stream.Stream(small.division.calibration, small.division.fitted, 7, fixed=True, seed=3)
        return [x for x, _ in images.epoch(1, 1)]

    held = batches()
    monkeypatch.setattr(stream, "HELD", 0)
    assert all(torch.equal(a, b) for a, b in zip(held, batches(), strict=True))


def test_moved_images_are_pieces_of_the_image_or_its_mirror_image() -> None:
    x = torch.arange(256.0).view(1, 1, 16, 16).expand(32, 1, 16, 16)
    made = augment.moved(x, torch.Generator().manual_seed(0))
    inner = made[:, 0, 2:14, 2:14]  # what no shift by 2 can reach from outside
    steps = inner[:, :, 1:] - inner[:, :, :-1]
    assert {float(step) for step in steps.flatten()} == {1.0, -1.0}
    assert len({float(value) for value in inner[:, 0, 0]}) > 8


def test_a_third_of_the_mixed_images_is_blended_and_a_third_has_a_patch_of_another() -> None:
    x = torch.arange(300.0).view(-1, 1, 1, 1).expand(300, 3, 8, 8)
    made = augment.mixed(x, torch.Generator().manual_seed(1))
    assert ((made >= 0) & (made < 300)).all()
    whole = made.flatten(1)
    same, level = (whole == x.flatten(1)).all(1), whole.std(1) < 1e-3
    assert 70 < int(same.sum()) < 150
    assert 70 < int((level & ~same).sum()) < 130
    patched = whole[~level]
    assert 60 < len(patched) < 130
    assert all(len(image.unique()) == 2 for image in patched)


def test_altered_images_are_near_what_they_were_and_never_the_same() -> None:
    wave = torch.linspace(0, 3, 32).sin()
    x = (wave.view(1, 1, -1, 1) * wave.view(1, 1, 1, -1)).expand(16, 3, 32, 32)
    made = augment.altered(x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape
    away = (made - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    assert (away > 0.01).all()
    assert (away < 0.6).all()
    again = augment.altered(x, torch.Generator().manual_seed(0))
    assert torch.equal(made, again)


def test_what_is_no_image_is_left_alone() -> None:
    x, generator = torch.randn(4, 10), torch.Generator()
    for change in (augment.moved, augment.altered, augment.mixed):
        assert torch.equal(change(x, generator), x)


def test_features_are_what_the_last_layers_read(tmp_path: Path) -> None:
    made = case(ZOO["residual"].module(), tmp_path)
    (found,) = distill.features(made.kept)
    assert "flatten" in found.name


@pytest.mark.parametrize(("epochs", "checks"), [(3, 3), (200, 40)])
def test_a_network_is_judged_after_every_epoch_but_not_too_often(
    epochs: int, checks: int, small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, agreement = [], distill.agreement
    monkeypatch.setattr(distill, "agreement", lambda *given: judged.append(1) or agreement(*given))
    small.distill(epochs=epochs)
    assert len(judged) == 1 + checks  # and once before


def test_the_ends_of_residual_branches_are_compared_as_well(tmp_path: Path) -> None:
    made = case(ZOO["residual"].module(), tmp_path)
    graph = made.kept.labelled.graph
    added = [node for node in graph.nodes if str(node.target) == "aten.add.Tensor"]
    assert added
    found = distill.sums(made.kept)
    assert len(found) == len(added)
    assert all(end is each or end in each.users for end, each in zip(found, added, strict=True))


def test_of_figures_that_images_cannot_tell_apart_the_last_one_counts() -> None:
    check = train.Check(lambda: 0.0, 41)
    assert check.noise(1.0) > 1 / 41
    assert check.noise(0.5) > check.noise(0.9)
    assert train.Check(lambda: 0.0, 256).noise(0.9) < 0.03
