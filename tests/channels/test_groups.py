"""Grouping leaves its argument as it is, and what groups promise to the steps after them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from pfpcli.channels.groups import Group, Groups, group
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labelling import label
from pfpcli.channels.labels import Axes
from pfpcli.errors import InputError
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.trace import trace
from zoo_blocks import NETS


@cache
def labelled(name: str) -> Labelled:
    net = NETS[name]
    return label(trace(net.module(), net.example()))


def plain(value: Any) -> Any:
    """A value without tensors and arrays, to compare."""
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.tolist()
    if isinstance(value, Axes):
        return value.shape, plain(value.labels), plain({d: (r.parts, r.labels) for d, r in value.ragged.items()})
    if isinstance(value, Group):
        return tuple(map(plain, vars(value).values()))
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, (tuple, list)) else value


def contents(found: Groups) -> Any:
    return plain([found.groups, found.root, found.owned])


# in the last three, grouping ties labels itself
@pytest.mark.parametrize("name", ["plain", "residual", "grouped", "attention", "split_attention", "transformer"])
def test_freezing_layers_leaves_the_labels_and_later_groups_as_they_were(name: str) -> None:
    given = labelled(name)
    before = plain([vars(given.store), given.axes])
    free = group(given)
    some = free.prunable[0].name.partition(" ")[0]
    frozen = group(given, [some])
    again = group(given)
    assert len(frozen.prunable) < len(free.prunable)
    assert contents(again) == contents(free)
    assert contents(group(given, [some])) == contents(frozen)
    assert plain([vars(given.store), given.axes]) == before


def test_the_labels_of_the_groups_know_what_was_frozen() -> None:
    given = labelled("plain")
    assert int(group(given, ["*"]).labelled.store.frozen.sum()) > int(given.store.frozen.sum())
    assert given.store.count == group(given, ["*"]).labelled.store.count


def test_a_pattern_that_matches_no_layer_is_refused() -> None:
    with pytest.raises(InputError, match="--freeze nothing: matches none of the 7 layers"):
        group(labelled("plain"), ["nothing"])


def test_groups_that_a_statistic_across_channels_is_taken_over_can_be_frozen() -> None:
    reasons = {each.frozen for each in group(labelled("norms"), exact_only=True).groups if each.inexact}
    assert reasons
    assert all(reason.startswith("--exact-only: normalised across channels") for reason in reasons)


@pytest.mark.parametrize("name", ["residual", "grouped", "attention", "unknown_op", "yolo", "transformer"])
def test_groups_keep_their_promises(name: str) -> None:
    group(labelled(name)).check()


def first(groups: Groups, **changes: Any) -> Groups:
    """The groups with a change of the first prunable one."""
    chosen = groups.prunable[0]
    return replace(groups, groups=tuple(replace(g, **changes) if g is chosen else g for g in groups.groups))


def a_root_too_few(groups: Groups) -> Groups:
    return replace(groups, root=groups.root[:-1])


def a_tie_across_units(groups: Groups) -> Groups:
    store = groups.labelled.store.copy()
    store.tie(*(torch.from_numpy(each.units[:1]) for each in groups.prunable[:2]))
    return replace(groups, labelled=replace(groups.labelled, store=store))


def the_same_unit_twice(groups: Groups) -> Groups:
    return first(groups, rows=groups.prunable[0].rows[:, [0, 0]])


def a_unit_of_another_group(groups: Groups) -> Groups:
    return first(groups, rows=groups.prunable[1].rows)


def label_0(groups: Groups) -> Groups:
    return first(groups, rows=np.zeros((1, 1), np.int64))


def a_label_that_is_no_root(groups: Groups) -> Groups:
    label = np.flatnonzero(groups.root != np.arange(len(groups.root)))[:1]
    return first(groups, rows=label[None])


def a_label_too_large(groups: Groups) -> Groups:
    return first(groups, rows=np.full((1, 1), len(groups.root)))


def a_frozen_unit(groups: Groups) -> Groups:
    rows = next(each.rows for each in groups.groups if each.frozen == "output of the model")
    return replace(groups, groups=(replace(groups.prunable[0], rows=rows),))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (a_root_too_few, r"root: has shape \(\d+,\), expected \(\d+,\)"),
        (a_tie_across_units, r"tie \d+: its two labels are in two units, expected one"),
        (the_same_unit_twice, r"group 0\.0: unit \d+ is in group 0\.0 already, expected in one"),
        (a_unit_of_another_group, r"group 1\.0: unit \d+ is in group 0\.0 already, expected in one"),
        (label_0, r"group 0\.0: 0 is no unit, expected a root label from 1 on"),
        (a_label_that_is_no_root, r"group 0\.0: \d+ is no unit, expected a root label from 1 on"),
        (a_label_too_large, r"group 0\.0: \d+ is no unit, expected a root label from 1 on"),
        (a_frozen_unit, r"group 0\.0: unit \d+ is frozen, expected units that may be dropped"),
    ],
)
def test_a_broken_group_is_reported_with_its_name(damage: Callable[[Groups], Groups], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        damage(group(labelled("plain"))).check()


def test_a_root_that_is_no_root_is_reported() -> None:
    groups = group(labelled("plain"))
    first, second, third = groups.prunable[0].units[:3]
    root = groups.root.copy()
    root[first], root[second] = second, third
    with pytest.raises(InvariantError, match=r"label \d+: its root is not a root, expected root\[root\] == root"):
        replace(groups, root=root).check()


@pytest.mark.parametrize(
    ("part", "owned", "message"),
    [
        (0, None, "part 0: 0 is no unit"),
        (None, np.array([10**9]), r"part \d+: 1000000000 is no unit"),
    ],
)
def test_a_part_that_owns_what_does_not_exist_is_reported(part: int | None, owned: Any, message: str) -> None:
    groups = group(labelled("attention"))
    head, units = next(iter(groups.owned.items()))
    broken = {head if part is None else part: units if owned is None else owned}
    with pytest.raises(InvariantError, match=message):
        replace(groups, owned=broken).check()


def test_a_part_that_owns_a_frozen_unit_is_reported() -> None:
    groups = group(labelled("attention"))
    head = next(iter(groups.owned))
    output = next(each for each in groups.groups if each.frozen == "output of the model")
    with pytest.raises(InvariantError, match=rf"part {head}: unit {output.units[0]} is frozen"):
        replace(groups, owned={head: output.units}).check()
