"""Changes: classes are counted, and the images that changed most are kept, however many there are."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs import changes as watched
from pfpcli.outputs.changes import SHOWN, Changes
from pfpcli.records.details import Behaviour, ClassCount


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes `Changes` of a network with given roles and shapes of outputs."""

    def make(roles: Sequence[Role], shapes: Sequence[tuple[int, ...]], names: Sequence[str] = ()) -> Changes:
        sizes = dict(zip(roles, shapes, strict=True))
        monkeypatch.setattr(watched, "roles_of", lambda graph: roles)
        monkeypatch.setattr(watched, "shape", lambda role, node: sizes[role])
        monkeypatch.setattr(watched, "is_tensor", lambda node: True)
        node = SimpleNamespace(meta={"val": torch.zeros(1)})
        return Changes(SimpleNamespace(outputs=[node] * len(roles)), names)  # type: ignore[arg-type]

    return make


def logits(classes: Sequence[int], count: int = 3) -> Tensor:
    return 5 * F.one_hot(torch.tensor(classes), count).float()


def shown(found: Changes, names: Sequence[str] = ()) -> Behaviour:
    made = found.behaviour(names, lambda image: f"picture of {image.shape}")
    assert made is not None
    return made


CLASSES = Role(0, "class", "logits", 1, "")


def test_classes_are_counted_by_labels_and_the_worst_comes_first(watching: Any) -> None:
    found = watching([CLASSES], [(1, 3)], ["cat", "dog", "emu"])
    images = torch.zeros(4, 3, 8, 8)
    found.add(0, images, logits([0, 0, 1, 1]), logits([0, 1, 1, 1]), np.array([0, 0, 1, 2]))
    made = shown(found)
    assert (made.output, made.counted, made.labelled, made.differ, made.images) == ("class", "images", True, 1, 4)
    assert made.classes == [ClassCount("cat", 2, 2, 1), ClassCount("dog", 1, 1, 1), ClassCount("emu", 1, 0, 0)]
    (changed,) = made.changed
    assert (changed.before, changed.after, changed.truth) == ("cat (99 %)", "dog (99 %)", "cat")
    assert changed.picture == "picture of (3, 8, 8)"


def test_without_labels_the_classes_are_those_that_the_original_finds(watching: Any) -> None:
    found = watching([CLASSES], [(1, 3)])
    found.add(0, torch.zeros(3, 1), logits([0, 0, 2]), logits([0, 2, 2]), None)
    made = shown(found)
    assert not made.labelled
    assert made.classes == [ClassCount("0", 2, 2, 1), ClassCount("2", 1, 1, 1)]


def test_labels_that_do_not_fit_every_image_count_for_none(watching: Any) -> None:
    found = watching([CLASSES], [(1, 3)])
    found.add(0, torch.zeros(2, 1), logits([0, 1]), logits([0, 1]), np.array([0, 1]))
    found.add(2, torch.zeros(2, 1), logits([0, 1]), logits([0, 1]), np.array([0, 99]))
    assert not shown(found).labelled


def test_the_images_that_changed_most_are_kept_over_all_batches(watching: Any) -> None:
    found = watching([Role(0, "y", "regression", None, "")], [(1, 2)])
    by = np.random.default_rng(0).permutation(60)
    for first in range(0, 60, 7):
        some = torch.tensor(by[first : first + 7])
        before = torch.ones(len(some), 2)
        found.add(first, torch.zeros(len(some), 3, 4, 4), before, before + some[:, None], None)
    made = shown(found, [f"{each}.png" for each in by])
    assert [each.name for each in made.changed] == [f"{each}.png" for each in range(59, 59 - SHOWN, -1)]
    assert [each.change for each in made.changed] == list(range(59, 59 - SHOWN, -1))
    assert made.differ is None
    assert made.classes == []


def test_an_image_that_did_not_change_is_not_shown(watching: Any) -> None:
    found = watching([CLASSES], [(1, 3)])
    found.add(0, torch.zeros(3, 1), logits([0, 1, 2]), logits([0, 1, 2]), None)
    assert shown(found).changed == []


def test_pixels_of_a_map_are_counted_by_their_mask_where_it_has_a_class(watching: Any) -> None:
    found = watching([Role(0, "map", "logits", 1, "")], [(1, 3, 2, 2)])
    truth = np.array([[[0, 0], [1, 255]]])
    before = F.one_hot(torch.tensor([[[0, 0], [1, 1]]]), 3).permute(0, 3, 1, 2).float()
    after = F.one_hot(torch.tensor([[[0, 1], [2, 1]]]), 3).permute(0, 3, 1, 2).float()
    found.add(0, torch.zeros(1, 3, 2, 2), before, after, truth)
    made = shown(found)
    assert (made.counted, made.labelled) == ("pixels", True)
    assert made.classes == [ClassCount("1", 1, 1, 0), ClassCount("0", 2, 2, 1)]
    assert len(made.changed[0].maps) == 3


@pytest.mark.parametrize(
    ("roles", "shapes", "name"),
    [
        ([Role(0, "box", "boxes", None, ""), CLASSES], [(1, 9, 4), (1, 3)], "class"),
        ([Role(0, "v", "embedding", None, ""), Role(1, "sr", "image", None, "")], [(1, 9), (1, 3, 4, 4)], "sr"),
    ],
)
def test_classes_are_watched_before_pictures_and_pictures_before_numbers(
    roles: list[Role], shapes: list[tuple[int, ...]], name: str, watching: Any
) -> None:
    found = watching(roles, shapes)
    assert found.watched == 1
    assert shown(found).output == name


def test_a_network_without_numbers_has_nothing_to_say(watching: Any) -> None:
    found = watching([], [])
    assert found.watched is None
    assert found.behaviour([], lambda image: "") is None
