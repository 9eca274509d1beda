"""The page: lines that fit a width and a character set, and numbers as text."""

from __future__ import annotations

import pytest

from pfpcli.report import numbers
from pfpcli.report.page import Page, shorten, spell


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        (numbers.count(0), "0"),
        (numbers.count(999), "999"),
        (numbers.count(1000), "1.00 k"),
        (numbers.count(9_994), "9.99 k"),
        (numbers.count(9_996), "10.0 k"),
        (numbers.count(272_474), "272.5 k"),
        (numbers.count(999_949), "999.9 k"),
        (numbers.count(999_950), "1.00 M"),
        (numbers.count(4.1e15), "4100.0 T"),
        (numbers.size(512), "512 B"),
        (numbers.size(1_090_000), "1.09 MB"),
        (numbers.percent(0.4), "40.0 %"),
        (numbers.percent(1), "100.0 %"),
        (numbers.percent(0.9997), "> 99.9 %"),
        (numbers.percent(0.00071), "0.071 %"),
        (numbers.percent(0), "0.0 %"),
        (numbers.percent(-0.031), "−3.1 %"),
        (numbers.share(0.00071), "0.1 %"),
        (numbers.change(200, 80), "−60.0 %"),
        (numbers.change(200, 210), "+5.0 %"),
        (numbers.change(100_000, 99_999), "0.0 %"),
        (numbers.change(0, 5), "–"),
        (numbers.points(0.912, 0.898), "−1.4 pp"),
        (numbers.milliseconds(0.0524), "0.052"),
        (numbers.milliseconds(2.104), "2.10"),
        (numbers.milliseconds(1234.5), "1234"),
        (numbers.milliseconds(0), "0.00"),
        (numbers.error(3.1e-15), "3.1e-15"),
        (numbers.error(1e-9), "1e-9"),
        (numbers.error(0), "0"),
        (numbers.seconds(6.13), "6.1 s"),
        (numbers.seconds(99.97), "1:40 min"),
        (numbers.clock(3), "0:03"),
    ],
)
def test_numbers_have_three_or_four_digits_and_a_unit(spelled: str, expected: str) -> None:
    assert spelled == expected


def test_a_shortened_name_keeps_both_ends() -> None:
    assert shorten("layer1.block2.conv3", 10) == "layer…onv3"
    assert shorten("short", 10) == "short"
    assert shorten("layer1.block2.conv3", 10, "...") == "laye...nv3"


def test_spelling_keeps_line_breaks_and_replaces_what_a_terminal_must_not_get() -> None:
    assert spell("a\nb\tc\x07", unicode=True) == "a\nb?c?"
    assert spell("12 → 3 · ε", unicode=False) == "12 -> 3 - eps"


def test_columns_are_dropped_before_names_get_too_short() -> None:
    page = Page(30, unicode=True)
    page.table([("name", "op", "n"), ("a_name_of_20_letters", "conv2d_transposed", "1")], "<<>", drop=(1,))
    assert page.text() == "  name                  n\n  a_name_of_20_letters  1\n"


def test_a_line_that_is_too_long_is_cut_at_a_space_and_says_where_the_rest_is() -> None:
    page = Page(40, unicode=True)
    page.line("warning: ", "short")
    page.line("warning: ", "one two three four five six seven eight")
    page.line("warning: ", "one two three\nfour")
    assert page.lines == [
        "  warning: short",
        "  warning: one two three four … --all",
        "  warning: one two three four",
    ]
    page = Page(40, unicode=False)
    page.line("warning: ", "one two three four five six seven eight")
    assert page.lines == ["  warning: one two three four ... --all"]
