"""What the labels of a graph promise to the steps after them, and how a broken promise is reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch.fx.node import Node

from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labelling import label
from pfpcli.channels.labels import Axes, Ragged, Store
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.trace import trace
from zoo_blocks import NETS


@cache
def labelled(name: str) -> Labelled:
    net = NETS[name]
    return label(trace(net.module(), net.example()))


@pytest.mark.parametrize("name", ["residual", "two_inputs", "grouped", "attention", "unknown_op", "yolo"])
def test_labels_keep_their_promises(name: str) -> None:
    labelled(name).check()


def test_labelling_says_which_ops_have_no_rule() -> None:
    assert [str(node.target) for node in labelled("unknown_op").unknown] == ["aten.prod.dim_int"]


def node_of(found: Labelled, start: str) -> Node:
    return next(node for node in found.graph.nodes if node.name.startswith(start))


def with_axes(found: Labelled, node: Node, axes: Any) -> Labelled:
    return replace(found, axes={**found.axes, node: axes})


def no_axes(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    return replace(found, axes={node: axes for node, axes in found.axes.items() if node is not conv})


def another_shape(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    return with_axes(found, conv, replace(found.axes[conv], shape=(2, 7, 8, 8)))


def a_short_vector(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    axes: Axes = found.axes[conv]
    return with_axes(found, conv, replace(axes, labels={1: axes.labels[1][1:]}))


def a_dimension_too_many(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    return with_axes(found, conv, replace(found.axes[conv], labels={4: torch.zeros(8, dtype=torch.int64)}))


def an_unknown_label(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    return with_axes(found, conv, replace(found.axes[conv], labels={1: torch.full((8,), found.store.count)}))


def a_negative_label(found: Labelled) -> Labelled:
    conv = node_of(found, "conv2d")
    return with_axes(found, conv, replace(found.axes[conv], labels={1: torch.full((8,), -1)}))


def a_read_label_that_nobody_handed_out(found: Labelled) -> Labelled:
    first, *others = found.contractions
    return replace(found, contractions=[replace(first, labels=first.labels + found.store.count), *others])


def a_free_output(found: Labelled) -> Labelled:
    (output,) = found.graph.outputs
    store = found.store.copy()
    axes = replace(found.axes[output], labels={1: store.fresh(5)})
    return replace(with_axes(found, output, axes), store=store)


def a_free_input(found: Labelled) -> Labelled:
    (image,) = found.graph.inputs
    store = found.store.copy()
    axes: Axes = found.axes[image]
    return replace(with_axes(found, image, replace(axes, labels={**axes.labels, 1: store.fresh(3)})), store=store)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_axes, "node conv2d: has None, expected the axes of a tensor"),
        (another_shape, r"node conv2d: has axes of shape \(2, 7, 8, 8\), expected \(2, 8, 8, 8\)"),
        (a_short_vector, r"node conv2d: has labels of shape \(7,\) along dimension 1, expected \(8,\)"),
        (a_dimension_too_many, r"node conv2d: has labels of shape \(8,\) along dimension 4, expected \(\)"),
        (an_unknown_label, r"node conv2d: has label (\d+), expected 0 to \d+"),
        (a_negative_label, "node conv2d: has label -1, expected 0 to"),
        (a_read_label_that_nobody_handed_out, r"node conv2d: has label \d+, expected 0 to"),
        (a_free_output, r"node linear: label \d+ is free, expected a frozen input or output"),
        (a_free_input, r"node input.*: label \d+ is free, expected a frozen input or output"),
    ],
)
def test_a_broken_label_is_reported_with_the_node(damage: Callable[[Labelled], Labelled], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        damage(labelled("plain")).check()


def test_every_result_of_a_call_has_axes() -> None:
    found = labelled("split_c2f")
    split = next(node for node, axes in found.axes.items() if isinstance(axes, tuple))
    broken = with_axes(found, split, found.axes[split][:1])
    with pytest.raises(InvariantError, match=rf"node {split}: has axes for 1 results, expected 2"):
        broken.check()


def test_every_part_of_a_ragged_dimension_has_labels() -> None:
    found = labelled("grouped")
    weight = next(node for node, axes in found.axes.items() if getattr(axes, "ragged", None))
    axes: Axes = found.axes[weight]
    ((dim, ragged),) = axes.ragged.items()
    short = Ragged(ragged.parts, ragged.labels[1:], ragged.span)
    with pytest.raises(InvariantError, match=rf"node {weight}: has labels of shape \(2, 4\) .*, expected \(3, 4\)"):
        with_axes(found, weight, replace(axes, ragged={dim: short})).check()


def test_a_copy_of_a_store_and_the_store_do_not_learn_from_each_other() -> None:
    store = Store()
    labels = store.fresh(4)
    other = store.copy()
    other.tie(labels[:2], labels[2:])
    other.freeze(labels[:1], "said to the copy")
    other.fresh(3)
    store.freeze(labels[3:], "said to the store")
    root, frozen = store.resolve()
    assert root.tolist() == [0, 1, 2, 3, 4]
    assert frozen == {4: "said to the store"}
    root, frozen = other.resolve()
    assert root.tolist() == [0, 1, 2, 1, 2, 5, 6, 7]
    assert frozen == {1: "said to the copy"}


def test_a_label_that_is_tied_to_label_0_is_frozen() -> None:
    store = Store()
    labels = store.fresh(2)
    store.tie(labels, torch.tensor([0, 2]))
    assert store.frozen.tolist() == [True, True, False]
    assert store.resolve()[1] == {1: "joined to something of fixed size"}
