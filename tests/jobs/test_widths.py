"""Of plans that lose nearly the same, the one whose widths are quick is taken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from torch import nn

import pfpcli
from pfpcli.channels.groups import Groups
from pfpcli.jobs.steps import widths
from pfpcli.jobs.steps.budget import Meter
from pfpcli.jobs.steps.widths import Race, choose, is_open, is_timed, quickest, remembered
from pfpcli.latency.files import Latency
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.portfolio import Tried
from pfpcli.report.run import render
from tasks import grouped

FREE, ROUNDED = (13, 7), (12, 8)


def tried(kept: tuple[int, ...], loss: float) -> list[Tried]:
    return [Tried("distance", loss, Mock(spec=Plan, kept=kept))]


def racing(*speeds: float, noise: float = 0.0) -> Race:
    """A race in which the files of the plans are so many times as fast as the original, up to noise."""

    def latency(speed: float, sign: int) -> Latency:
        blocks = [(1 + sign * noise * (-1) ** i) / speed for i in range(9)]
        return Latency(1 / speed, 0.0, 9, tuple(blocks))

    def race(plans: Sequence[Plan | None]) -> list[Latency]:
        of_plans = iter(speeds)
        return [latency(1.0 if plan is None else next(of_plans), (-1) ** i) for i, plan in enumerate(plans)]

    return race


@pytest.mark.parametrize(
    ("loss", "race", "kept", "why"),
    [
        (0.9, None, ROUNDED, "widths: multiples of 4; they lose no more"),
        (1.04, None, ROUNDED, "widths: multiples of 4; they lose 1.04 × as much"),
        (1.2, racing(0.9, 1.3), ROUNDED, "is 0.90 × as fast as the original without them, 1.30 × with them"),
        (1.2, racing(1.005, 1.3, noise=0.01), ROUNDED, "widths: multiples of 4"),
        (1.2, racing(1.1, 1.3), FREE, "widths: as they fall; multiples of 4 lose 1.20 × as much"),
        (1.2, racing(0.9, 0.9), FREE, "as they fall"),
        (1.2, racing(0.9, 1.3, noise=0.5), FREE, "as they fall"),
        (1.2, lambda plans: None, FREE, "nothing was timed"),
        (1.2, None, FREE, "nothing was timed"),
        (1.4, racing(0.5, 2.0), FREE, "widths: as they fall; multiples of 4 lose 1.40 × as much"),
    ],
    ids=[
        "they lose less", "they lose hardly more", "the others are slow", "the others are as slow as it",
        "the others are quick",
        "they gain nothing",
        "too noisy to tell", "files that cannot be written", "nobody times", "they lose far more",
    ],
)  # fmt: skip
def test_multiples_are_taken_where_they_cost_little_or_the_others_are_slow(
    loss: float, race: Race | None, kept: tuple[int, ...], why: str
) -> None:
    chosen, said = choose(tried(FREE, 1.0), tried(ROUNDED, loss), race)
    assert chosen[0].plan.kept == kept
    assert why in said


def test_nothing_is_said_where_both_plans_are_one() -> None:
    assert choose(tried(FREE, 1.0), tried(FREE, 1.0), None)[1] == ""


def test_files_are_timed_only_where_that_decides() -> None:
    race = Mock()
    for loss in (1.0, 2.0):
        choose(tried(FREE, 1.0), tried(ROUNDED, loss), race)
    race.assert_not_called()


def test_files_are_timed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PFP_CACHE", str(tmp_path))
    race = Mock(wraps=racing(0.9, 1.3))
    one, other = tried(FREE, 1.0)[0].plan, tried(ROUNDED, 1.0)[0].plan
    first, again = (remembered(race, "key", None)([one, other]) for _ in range(2))
    assert first == again == racing(0.9, 1.3)([one, other])
    race.assert_called_once()
    remembered(race, "key", None)([other, one])
    remembered(race, "", None)([one, other])
    assert race.call_count == 3


@pytest.mark.parametrize(
    ("losses", "race", "taken", "why"),
    [
        ((1.0, 1.04), racing(1.3, 1.5), 1, "widths: the quickest; plan 1 is 1.15 × as fast as 0, and loses 1.04"),
        ((1.0, 1.04), racing(1.5, 1.3), 0, ""),
        ((1.0, 1.04), racing(1.3, 1.5, noise=0.3), 0, ""),
        ((1.0, 1.01, 1.04), racing(1.3, 1.4, 1.5), 2, "plan 2 is 1.15 × as fast as 0, and loses 1.04 × as much"),
        ((1.0, 1.01, 1.04), racing(1.3, 1.5, 1.4), 1, "plan 1"),
        ((1.0, 1.0, 1.0, 1.0), racing(1.3, 1.4, 1.5), 2, "loses 1.00 × as much"),
        ((1e-19, 1e-18), racing(1.3, 1.5), 1, "and both lose next to nothing"),
        ((1.0, 1.04), lambda plans: None, 0, ""),
        ((1.0, 1.04), None, 0, ""),
    ],
    ids=[
        "it is quicker", "it is slower", "too noisy to tell", "the last of three", "the second of three",
        "three are timed", "losses of nothing", "files that cannot be written", "nobody times",
    ],
)  # fmt: skip
def test_the_quickest_of_plans_that_lose_hardly_more_is_taken(
    losses: tuple[float, ...], race: Race | None, taken: int, why: str
) -> None:
    plans = [Tried(str(i), loss, Mock(spec=Plan, kept=(i,))) for i, loss in enumerate(losses)]
    chosen, said = quickest(plans, race)
    assert chosen[0] is plans[taken]
    assert sorted(each.name for each in chosen) == sorted(each.name for each in plans)
    assert why in said
    assert bool(said) == bool(taken)


def test_a_plan_that_loses_more_is_not_timed() -> None:
    race = Mock()
    quickest([Tried(str(i), loss, Mock(spec=Plan, kept=(i,))) for i, loss in enumerate((1.0, 1.06))], race)
    race.assert_not_called()


@pytest.mark.parametrize(
    ("channels", "budget", "expected"),
    [
        (32, Budget(0.5, "macs", multiple_of=None), True),
        (32, Budget(0.5, "latency", multiple_of=None), False),
        (32, Budget(0.5, "macs", multiple_of=1), False),
        (32, Budget(1, "macs", multiple_of=None), False),
        (32, Budget(epsilon=0.1, multiple_of=None), False),
        (128, Budget(0.5, "macs", multiple_of=None), False),
        (12, Budget(0.5, "macs", multiple_of=None), False),
    ],
    ids=["small", "latency", "asked for", "everything stays", "an error", "not small", "narrow"],
)
def test_small_networks_alone_are_planned_with_both(channels: int, budget: Budget, expected: bool) -> None:
    assert is_open(of_channels(channels), budget) == expected


@pytest.mark.parametrize(
    ("channels", "budget", "expected"),
    [
        (128, Budget(0.5, "macs", multiple_of=None), True),
        (128, Budget(0.5, "latency", multiple_of=None), False),
        (128, Budget(0.5, "macs", multiple_of=8), False),
        (128, Budget(1, "macs", multiple_of=None), False),
        (128, Budget(epsilon=0.1, multiple_of=None), False),
        (32, Budget(0.5, "macs", multiple_of=None), False),
        (12, Budget(0.5, "macs", multiple_of=None), False),
    ],
    ids=["larger", "latency", "asked for", "everything stays", "an error", "small", "narrow"],
)
def test_plans_of_larger_networks_alone_are_timed(channels: int, budget: Budget, expected: bool) -> None:
    assert is_timed(of_channels(channels), budget) == expected


def of_channels(count: int) -> Groups:
    net = nn.Sequential(nn.Conv2d(3, count, 3), nn.ReLU(), nn.Conv2d(count, 4, 3))
    return grouped(net, torch.zeros(1, 3, 8, 8))


def test_the_network_that_comes_out_is_the_quickest(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[int] = []

    def race(self: Meter, plans: Sequence[Plan | None]) -> list[Latency] | None:
        timed.append(len(plans))
        return racing(*range(1, 1 + len(plans)))(plans)  # the last one is the quickest

    monkeypatch.setattr(Meter, "race", race)
    monkeypatch.setattr(widths, "HARDLY", 1e9)
    torch.manual_seed(0)
    conv = [nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 128, 3), nn.ReLU()]
    net = nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4))
    how = {"input_size": (3, 8, 8), "criterion": "l2", "keep": 0.5, "keep_of": "macs", "recover": ()}
    run = pfpcli.compress(net, here / "imgs", out=here / "quickest", **how).record
    taken, *others = run.scoring["plans"]
    assert len(others) >= timed[0] - 1 > 0
    assert any(taken["loss"] > each["loss"] for each in others)
    assert run.scoring["widths"].startswith(f"widths: the quickest; plan {taken['name']} is ")
    assert f"plan {taken['name']}, nearly the best of {1 + len(others)}: loss" in render(run)
