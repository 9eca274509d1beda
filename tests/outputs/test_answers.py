"""Answers: how far two networks are apart about an image, and what people see of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from pfpcli.graph.role import Role
from pfpcli.outputs.answers import Answers, ClassMap, Numbers, OneClass, Picture, answers
from pfpcli.outputs.kinds import KINDS

NAMES = ("cat", "dog", "emu")


def of(kind: str, *shape: int, axis: int | None = None, names: tuple[str, ...] = NAMES) -> Answers:
    return answers(Role(0, "y", kind, axis or (1 if KINDS[kind].has_classes else None), ""), shape, names)


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("logits", (2, 3), OneClass),
        ("probabilities", (2, 3, 8, 8), ClassMap),
        ("logits", (2, 9, 3), Numbers),
        ("image", (2, 3, 8, 8), Picture),
        ("sigmoid", (2, 1, 8, 8), Picture),
        ("sigmoid", (2, 7, 8, 8), Numbers),
        ("embedding", (2, 16), Numbers),
        ("boxes", (2, 20, 4), Numbers),
        ("regression", (2, 3, 8, 8), Numbers),
    ],
)
def test_the_role_and_the_shape_of_an_output_say_how_it_answers(
    kind: str, shape: tuple[int, ...], expected: type[Answers]
) -> None:
    assert type(of(kind, *shape)) is expected


def test_an_image_with_another_class_is_further_away_than_one_with_the_same() -> None:
    before = torch.tensor([[0.0, 1.0, 0.0], [0.0, 9.0, 0.0]])
    after = torch.tensor([[1.0, 0.9, 0.0], [0.0, 0.1, 0.0]])
    first, second = of("logits", 2, 3).distances(before, after).tolist()
    assert 1 < first < 2
    assert 0 < second < 1


def test_a_class_is_named_with_its_probability() -> None:
    scores = torch.tensor([0.0, math.log(8), 0.0])
    assert of("logits", 1, 3).answer(scores).text == "dog (80 %)"
    assert of("probabilities", 1, 3).answer(torch.tensor([0.1, 0.2, 0.7])).text == "emu (70 %)"


def test_names_of_some_classes_name_none() -> None:
    assert of("logits", 1, 5).answer(torch.eye(5)[2]).text.startswith("2 (")


def test_a_map_is_apart_by_the_share_of_its_pixels_and_shows_where() -> None:
    first = torch.zeros(1, 4, 4, dtype=torch.long)
    second = first.clone()
    second[:, :1] = 2
    a, b = (F.one_hot(x, 3).permute(0, 3, 1, 2).float() for x in (first, second))
    kind = of("logits", 1, 3, 4, 4)
    assert kind.distances(a, b).tolist() == [0.25]
    maps = kind.maps(kind.answer(a[0]), kind.answer(b[0]))
    assert len(maps) == 3
    assert maps[0] != maps[1]


def test_a_picture_is_shown_before_and_after_with_the_difference() -> None:
    x = torch.rand(2, 3, 8, 8)
    kind = of("image", 2, 3, 8, 8)
    assert kind.distances(x, 1.5 * x).tolist() == pytest.approx([0.5, 0.5])
    before = kind.answer(x[0])
    assert before.text == ""
    assert all(uri.startswith("data:image/jpeg") for uri in kind.maps(before, kind.answer(x[1])))


def test_numbers_are_listed_as_far_as_they_are_few() -> None:
    kind = of("regression", 2, 6)
    assert kind.answer(torch.tensor([-1.5, 2.0])).text == "−1.5, 2"
    assert kind.answer(torch.arange(6.0)).text == "0, 1, 2, 3, …"
    steps = F.one_hot(torch.tensor([0, 1, 1, 2])).float()
    assert of("logits", 1, 4, 3, axis=2).answer(steps).text == "cat, dog, emu"


@pytest.mark.parametrize(("kind", "shape"), [("logits", (2, 3)), ("image", (2, 1, 4, 4)), ("regression", (2, 3))])
def test_outputs_that_are_not_finite_have_a_distance_and_an_answer(kind: str, shape: tuple[int, ...]) -> None:
    found, broken = of(kind, *shape), torch.full(shape, math.nan)
    assert found.distances(torch.ones(shape), broken).isfinite().all()
    found.maps(found.answer(torch.ones(shape)[0]), found.answer(broken[0]))
