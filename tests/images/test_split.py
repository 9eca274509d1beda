"""The random split of samples."""

from __future__ import annotations

import numpy as np

from pfpcli.images.split import split


def test_a_split_is_disjoint_complete_and_repeatable() -> None:
    score, rest = split(20, None, 8, seed=3)
    assert (len(score), len(rest)) == (8, 12)
    assert score.dtype == np.int64
    assert sorted([*score, *rest]) == list(range(20))
    again, other = split(20, None, 8, seed=3), split(20, None, 8, seed=4)
    assert np.array_equal(score, again[0])
    assert np.array_equal(rest, again[1])
    assert not np.array_equal(score, other[0])


def test_too_few_samples_leave_nothing_to_evaluate_on() -> None:
    score, rest = split(5, None, 8, seed=0)
    assert sorted(score) == list(range(5))
    assert len(rest) == 0


def test_a_split_keeps_the_proportions_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    score, rest = split(100, labels, 20, seed=1)
    assert np.bincount(labels[score]).tolist() == [12, 6, 2]
    assert np.bincount(labels[rest]).tolist() == [48, 24, 8]


def test_a_split_with_more_classes_than_samples_takes_no_class_twice() -> None:
    labels = np.repeat(np.arange(50), 4)
    score, _ = split(200, labels, 10, seed=0)
    assert len(set(labels[score])) == 10
    assert set(labels[score]) != set(labels[split(200, labels, 10, seed=1)[0]])
