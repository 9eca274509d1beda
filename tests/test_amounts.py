"""Amounts as they are typed."""

from __future__ import annotations

import pytest

from pfpcli.amounts import parse_amount
from pfpcli.errors import InputError


@pytest.mark.parametrize(
    ("of", "text", "fraction", "absolute"),
    [
        ("latency", "0.6", 0.6, None),
        ("latency", "60%", 0.6, None),
        ("latency", "4ms", None, 4.0),
        ("latency", "0.5 s", None, 500.0),
        ("size", "2MB", None, 2e6),
        ("size", "512KiB", None, 512 * 1024.0),
        ("macs", "200M", None, 2e8),
        ("params", "1000", None, 1000.0),
        ("params", 0.25, 0.25, None),
        ("params", "1.5e6", None, 1.5e6),
    ],
)
def test_an_amount_is_a_fraction_or_has_a_unit(
    of: str, text: str | float, fraction: float | None, absolute: float | None
) -> None:
    found = parse_amount(of, text)
    assert (found.fraction, found.absolute) == (pytest.approx(fraction) if fraction else None, absolute)


@pytest.mark.parametrize(
    ("of", "text"),
    [("latency", "4"), ("latency", "4MB"), ("size", "2"), ("macs", "-1"), ("params", "many"), ("size", "120%"),
     ("latency", "0"), ("latency", ""), ("macs", "1..2M")],
)  # fmt: skip
def test_other_amounts_are_refused_with_an_example(of: str, text: str) -> None:
    with pytest.raises(
        InputError, match=f"--{of} {text}: expected a fraction of the original's, or an amount"
    ) as error:
        parse_amount(of, text)
    assert f"--{of}" in error.value.hint
