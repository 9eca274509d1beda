"""Settings made of keyword arguments: what a Python user would write is taken, other types are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pfpcli.errors import InputError
from pfpcli.settings import CompareCriteriaSettings, CompressSettings, InMemoryModel
from pfpcli.settings.python import from_python


def made(**values: Any) -> CompressSettings:
    return from_python(CompressSettings, {"model": "model.pt", "calib": "imgs", **values})


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("calib", Path("imgs"), Path("imgs")),
        ("out", "small", Path("small")),
        ("keep", "40%", 0.4),
        ("keep", 1, 1.0),
        ("keep", np.float32(0.5), 0.5),
        ("keep", torch.tensor(0.5), 0.5),
        ("samples", np.int64(7), 7),
        ("resize", (224, 256), "224x256"),
        ("resize", [256], "256"),
        ("resize", 256, "256"),
        ("resize", "256", "256"),
        ("mean", [0.5, 0.5, 0.5], (0.5, 0.5, 0.5)),
        ("mean", np.full(3, 0.5), (0.5, 0.5, 0.5)),
        ("std", 0.25, (0.25,)),
        ("input_size", [3, 32, 32], (3, 32, 32)),
        ("input_size", torch.Size([3, 32, 32]), (3, 32, 32)),
        ("freeze", "head*", ("head*",)),
        ("freeze", ["stem", "head*"], ("stem", "head*")),
        ("recover", "lsq,bn", ("lsq", "bn")),
        ("recover", "none", ()),
        ("recover", None, ()),
        ("device", torch.device("cpu"), "cpu"),
        ("preprocess", Path("prep.toml"), "prep.toml"),
        ("arch_kwargs", {"num_classes": 10}, {"num_classes": 10}),
        ("epsilon", None, None),
    ],
)
def test_values_as_python_users_write_them_are_taken(name: str, value: Any, expected: Any) -> None:
    assert getattr(made(**{name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", 3, "model=3: expected a path or a torch.nn.Module, found int"),
        ("calib", None, "calib=None: expected a path, found NoneType"),
        ("keep", [0.4], r"keep=\[0.4\]: expected a number, found list"),
        ("keep", "much", "--keep much: expected a number such as 0.4 or 40%"),
        ("resize", (1.5, 2), r"resize=\(1.5, 2\): expected a string, found tuple"),
        ("mean", "grey", "mean='grey': expected a sequence of numbers, found str"),
        ("mean", [1, "b"], r"mean=\[1, 'b'\]: expected a sequence of numbers, found list"),
        ("samples", "5", "samples='5': expected a whole number, found str"),
        ("samples", 1.5, "samples=1.5: expected a whole number, found float"),
        ("threads", True, "threads=True: expected a whole number, found bool"),
        ("trust", "yes", "trust='yes': expected True or False, found str"),
        ("freeze", [1], r"freeze=\[1\]: expected a sequence of strings, found list"),
        ("arch_kwargs", [1], r"arch_kwargs=\[1\]: expected a dictionary with strings as keys, found list"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        made(**{name: value})


def test_an_unknown_argument_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(InputError, match="kepe: no such argument") as caught:
        made(kepe=0.4)
    assert caught.value.hint == "did you mean `keep`?"


def test_a_value_out_of_range_is_refused_as_on_the_command_line() -> None:
    with pytest.raises(InputError, match="--keep 2: expected a fraction"):
        made(keep=2)


def test_several_budgets_may_be_written_in_any_form() -> None:
    values = {"model": "model.pt", "calib": "imgs", "keeps": [0.8, "40%"], "criteria": "pfp,l1"}
    settings = from_python(CompareCriteriaSettings, values)
    assert (settings.keeps, settings.criteria) == ((0.8, 0.4), ("pfp", "l1"))


def test_a_module_in_memory_has_the_name_of_its_class_in_folders_and_records() -> None:
    settings = made(model=InMemoryModel(torch.nn.ReLU(), "ReLU"))
    assert settings.name == "ReLU-keep0.50"
    assert settings.recorded()["model"] == "ReLU"
