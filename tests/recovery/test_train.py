"""Training: interruptions, limits, checks, and the tensors that are trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distilled import Case, case, same, undecided
from pfpcli.cache_folder import write_sealed
from pfpcli.graph.trace import trace
from pfpcli.jobs.step_store import packed
from pfpcli.recovery import distill, train
from pfpcli.recovery.trainable import trainable


@pytest.fixture
def small(tmp_path: Path) -> Case:
    return case(undecided(), tmp_path)


def test_training_restores_the_flags_and_kinds_of_tensors(small: Case) -> None:
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
    with trainable(graph) as tensors:
        assert set(tensors) == {"weight", "norm.weight", "norm.bias"}
        assert isinstance(graph.module.weight, nn.Parameter)
    assert not isinstance(graph.module.weight, nn.Parameter)
    assert not graph.module.weight.requires_grad


def interrupt_after(calls: int) -> Callable[[float, float], None]:
    left = iter(range(calls))

    def progress(done: float, figure: float) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("calls", [0, 4, 7])
def test_interrupted_training_ends_with_the_tensors_of_uninterrupted_training(
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
    assert list(state.parent.iterdir()) == [state]
    broken.smaller.module.load_state_dict(before)
    assert broken.distill(epochs=4, state=state, progress=interrupt_after(0)) == found  # nothing is trained again
    assert same(broken.tensors(), straight.tensors())


@pytest.mark.parametrize("content", [b"", b"no zip archive", packed({"now": {"another": torch.zeros(1)}})])
def test_a_state_that_does_not_fit_is_ignored(content: bytes, small: Case, tmp_path: Path) -> None:
    state = tmp_path / "cache" / "some.training"
    write_sealed(state, content)
    assert small.distill(epochs=1, state=state).epochs == 1


def test_time_is_a_limit_as_well(small: Case) -> None:
    found = small.distill(epochs=None, minutes=0.01)  # type: ignore[arg-type]
    assert found.epochs > 0
    assert found.seconds > 0


@pytest.mark.parametrize(("epochs", "checks"), [(3, 3), (200, 40)])
def test_a_network_is_checked_after_every_epoch_but_at_most_40_times(
    epochs: int, checks: int, small: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged, closeness = [], distill.closeness
    monkeypatch.setattr(distill, "closeness", lambda *given: judged.append(1) or closeness(*given))
    small.distill(epochs=epochs)
    assert len(judged) == 1 + checks  # and once before


def test_the_noise_of_a_figure_falls_with_the_number_of_images_and_is_never_zero() -> None:
    check = train.Check(lambda: 0.0, 41)
    assert check.noise(1.0) > 1 / 41
    assert check.noise(0.5) > check.noise(0.9)
    assert train.Check(lambda: 0.0, 256).noise(0.9) < 0.03
