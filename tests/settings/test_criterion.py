"""Which criterion scores channels where the user names none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pfpcli.errors import InputError
from pfpcli.settings import CompressSettings


def criterion(**given: Any) -> str:
    return CompressSettings(model=Path("model.pt"), calib=Path("imgs"), **given).criterion


def test_the_default_is_the_best_order_of_each_group() -> None:
    assert criterion() == criterion(keep=0.4) == criterion(allocate="uniform") == "auto"


@pytest.mark.parametrize("given", [{"epsilon": 0.1}, {"allocate": "pfp", "keep": 0.4}])
def test_an_error_for_all_layers_is_bounded_by_the_sensitivity(given: dict[str, Any]) -> None:
    assert criterion(**given) == "pfp"


@pytest.mark.parametrize("given", [{"epsilon": 0.1}, {"allocate": "pfp", "keep": 0.4}])
def test_a_criterion_that_bounds_no_error_is_refused_where_one_is_asked_for(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="criterion l1 bounds no error"):
        criterion(criterion="l1", **given)
