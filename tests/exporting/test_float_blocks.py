"""The search for the blocks that stay in float: few measurements, and only blocks that have to."""

from __future__ import annotations

import math

from pfpcli.exporting.float_blocks import find_float_blocks, in_blocks


class Losses:
    """The loss is the sum of the losses of the blocks that are quantised; sets that were measured are kept."""

    def __init__(self, *losses: float) -> None:
        self.losses = losses
        self.measured: list[frozenset[int]] = []

    def __call__(self, in_float: frozenset[int]) -> float:
        self.measured.append(in_float)
        return sum(loss for block, loss in enumerate(self.losses) if block not in in_float)


def test_a_network_that_loses_little_is_quantised_whole_after_one_measurement() -> None:
    losses = Losses(0.001, 0.002, 0.003)
    found = find_float_blocks(3, losses, 0.01)
    assert (found.blocks, found.loss) == (frozenset(), 0.006)
    assert losses.measured == [frozenset()]


def test_the_fewest_blocks_with_the_largest_losses_stay_in_float() -> None:
    found = find_float_blocks(6, Losses(0.001, 0.5, 0.002, 0.3, 0.003, 0.02), 0.01)
    assert found.blocks == {1, 3, 5}
    assert found.loss <= 0.01


def test_the_number_of_measurements_grows_with_the_number_of_blocks_and_its_logarithm() -> None:
    losses = Losses(*(0.01 * (block + 1) for block in range(32)))
    find_float_blocks(32, losses, 0.05)
    assert len(losses.measured) <= 1 + 32 + math.log2(32)


def test_every_block_stays_in_float_where_none_is_accepted() -> None:
    assert find_float_blocks(3, Losses(1, 1, 1), 0.01).blocks == {0, 1, 2}


def test_a_loss_that_is_no_number_is_not_accepted() -> None:
    assert find_float_blocks(2, lambda _: math.nan, 0.01).blocks == {0, 1}


def test_neighbouring_groups_are_joined_where_there_are_too_many() -> None:
    groups = [(f"conv{i}", f"relu{i}") for i in range(5)]
    blocks = in_blocks(groups, most=2)
    assert [len(block) for block in blocks] == [4, 6]
    assert [name for block in blocks for name in block] == [name for group in groups for name in group]
    assert in_blocks(groups, most=10) == groups
    assert in_blocks([]) == []
