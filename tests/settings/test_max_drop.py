"""How far a quality may fall, as it is typed and as it is written in Python."""

from __future__ import annotations

import numpy as np
import pytest

from pfpcli.errors import InputError
from pfpcli.settings import CompressSettings
from pfpcli.settings.max_drop import MaxDrop, parse_max_drop
from pfpcli.settings.python import from_python

FILES = {"model": "model.pt", "calib": "imgs"}


@pytest.mark.parametrize(
    ("text", "most", "unit"),
    [("1%", 0.01, ""), ("0.02", 0.02, ""), ("0.5dB", 0.5, "dB"), ("0.5 db", 0.5, "dB"), ("0", 0.0, "")],
)
def test_a_fall_is_a_share_or_decibels(text: str, most: float, unit: str) -> None:
    assert parse_max_drop(text) == MaxDrop(most, unit)


@pytest.mark.parametrize("text", ["much", "dB", "-1%", "nan", "inf"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--max-drop .*: expected a number"):
        parse_max_drop(text)


@pytest.mark.parametrize("value", [0.02, "2%", np.float64(0.02), MaxDrop(0.02)])
def test_python_takes_numbers_and_texts(value: object) -> None:
    settings = from_python(CompressSettings, {**FILES, "max_drop": value})
    assert settings.max_drop == MaxDrop(0.02)
    assert settings.recorded()["max_drop"] == 0.02


@pytest.mark.parametrize("value", [True, [0.1], {}])
def test_python_refuses_other_types(value: object) -> None:
    with pytest.raises(InputError, match=r"max_drop=.*: expected a number, or a text"):
        from_python(CompressSettings, {**FILES, "max_drop": value})


@pytest.mark.parametrize(
    ("more", "searched", "name"),
    [
        ({}, True, "model-drop0.01"),
        ({"max_drop": "0.5dB"}, True, "model-drop0.5dB"),
        ({"keep": 0.4}, False, "model-keep0.40"),
        ({"epsilon": 0.5}, False, "model-epsilon0.5"),
        ({"plan": "plan.json"}, False, "model-planned"),
        ({"max_drop": None}, False, "model-keep0.50"),
    ],
)
def test_a_network_is_searched_where_nothing_else_says_how_much_to_keep(
    more: dict[str, object], searched: bool, name: str
) -> None:
    settings = from_python(CompressSettings, {**FILES, "max_drop": 0.01, **more})
    assert (settings.is_searched, settings.name) == (searched, name)


@pytest.mark.parametrize("more", [{"keep": 0.4}, {"epsilon": 0.5}, {"steps": 2}])
def test_a_plan_and_a_budget_are_two_answers_to_one_question(more: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"--plan plan\.json --\w+ [\d.]+: a plan says what to keep"):
        from_python(CompressSettings, {**FILES, "plan": "plan.json", **more})
