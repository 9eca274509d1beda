"""Latencies of whole files, and how sure their differences are."""

from __future__ import annotations

import itertools
import time

import pytest

from pfpcli.latency import files
from pfpcli.latency.files import Latency, speed_up, time_in_turn


def latency(*blocks: float) -> Latency:
    return Latency(sorted(blocks)[len(blocks) // 2], 0.1, 8 * len(blocks), blocks)


def test_a_speed_up_that_its_blocks_agree_on_is_measurable() -> None:
    found = speed_up(latency(*[2.0] * 9), latency(*[1.0] * 8, 1.1))
    assert found.times == 2
    assert found.is_measurable


def test_a_difference_below_the_spread_is_not_measurable() -> None:
    before = latency(1.0, 1.2, 0.9, 1.1, 1.0, 1.3, 0.8, 1.0, 1.1)
    after = latency(1.1, 1.0, 1.0, 1.0, 1.1, 1.0, 1.0, 0.9, 1.0)
    found = speed_up(before, after)
    assert found.low < 1 < found.high
    assert not found.is_measurable


def test_few_blocks_leave_the_whole_range_as_the_interval() -> None:
    found = speed_up(latency(1.0, 2.0, 3.0), latency(1.0, 1.0, 1.0))
    assert (found.low, found.times, found.high) == (1, 2, 3)


def test_one_disturbed_block_does_not_change_the_part() -> None:
    assert latency(1.0, 1.0, 9.0).part_of(latency(2.0, 2.0, 2.0)) == 0.5


def test_networks_are_timed_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LEAST", 0.0)
    monkeypatch.setattr(files, "MOST_BLOCKS", files.BLOCKS)
    calls: list[str] = []
    quick, slow = time_in_turn([lambda: calls.append("a"), lambda: (calls.append("b"), time.sleep(0.002))])
    assert len(quick.blocks) == files.BLOCKS
    assert quick.runs == files.BLOCKS * files.BLOCK
    assert slow.median_ms >= 2
    one_block = files.WARM_UP + files.BLOCK
    assert calls[: 2 * one_block] == ["a"] * one_block + ["b"] * one_block


@pytest.mark.parametrize(
    ("blocks", "timed"),
    [
        ([2.0], 9),
        ([2.0, 2.02, 1.98], 9),
        ([2.0, 2.5, 1.7], 27),
        ([2.0, 3.0, 1.0, 2.5, 1.5, 2.8, 1.2, 3.5, 0.8] + [2.0] * 18, 17),
    ],
    ids=["equal", "within the precision", "never sure", "quiet after a while"],
)
def test_there_are_more_blocks_until_a_speed_up_is_told_precisely(
    blocks: list[float], timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCKS", 9)
    monkeypatch.setattr(files, "MOST_BLOCKS", 27)
    monkeypatch.setattr(files, "_block", lambda run: [run()])
    whole, noisy = time_in_turn([lambda: 1.0, itertools.cycle(blocks).__next__])
    assert len(whole.blocks) == len(noisy.blocks) == timed
