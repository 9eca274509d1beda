"""Falls of a metric as text: each in its unit, with what was asked, achieved and confirmed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pfpcli import report
from pfpcli.records.searched import Fall, Search, SearchedPoint
from pfpcli.report import falls
from runs import run

ACHIEVED = Fall("accuracy", "pp", 0.861, 0.853, -0.004, 0.021, 500, "images of test that chose the network")
CONFIRMED = replace(ACHIEVED, after=0.864, low=-0.02, high=0.013, source="images of test")
POINTS = [SearchedPoint(0.5, 0.5, 0.03, False), SearchedPoint(0.75, 0.751, 0.008, True)]
SEARCH = Search(0.01, ACHIEVED, CONFIRMED, POINTS)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0081, "pp", "0.8 pp"),
        (0.0004, "pp", "0.04 pp"),
        (0.0, "pp", "0.0 pp"),
        (0.314, "dB", "0.314 dB"),
        (0.00812, "", "0.00812"),
    ],
)
def test_a_fall_is_spelled_in_its_unit(value: float, unit: str, text: str) -> None:
    assert falls.spelled(value, unit) == text


def test_a_network_that_is_better_than_the_original_rises() -> None:
    assert falls.moved(ACHIEVED) == "accuracy falls by 0.8 pp"
    assert falls.moved(CONFIRMED) == "accuracy rises by 0.3 pp"


def test_the_report_says_what_was_asked_achieved_and_confirmed() -> None:
    text = report.render(run(search=SEARCH))
    assert "accuracy +0.3 pp (asked −1.0 pp)" in text.splitlines()[0]
    lines = " ".join(text.split())
    assert "asked accuracy falls by at most 1.0 pp" in lines
    assert "achieved a fall of 0.8 pp (95 %: −0.4 to 2.1 pp) on 500 images of test that chose the network" in lines
    assert "2 networks tried" in lines
    assert "confirmed a fall of −0.3 pp (95 %: −2.0 to 1.3 pp) on 500 images of test that nothing has used" in lines
    assert max(map(len, text.splitlines())) <= 80


def test_a_network_that_falls_further_on_other_images_is_no_pass() -> None:
    found = replace(SEARCH, confirmed=replace(CONFIRMED, after=0.846))
    text = report.verdict(run(search=found, status="worse"))
    assert text.startswith("WORSE  model.pt: ")
    assert text.endswith("accuracy −1.5 pp (asked −1.0 pp)")


def test_a_failed_run_says_the_fall_that_was_asked_for() -> None:
    text = report.verdict(run(search=SEARCH, status="failed", failure="accuracy fell by 0.03"))
    assert "accuracy fell by 0.03 (asked −1.0 pp" in text


def test_nothing_that_was_not_measured_is_claimed() -> None:
    few = " ".join(report.render(run(search=replace(SEARCH, confirmed=None))).split())
    assert "confirmed not at all: too few images to keep some apart (--eval)" in few
    own = Fall("mAP", "", 0.5, 0.49, None, None, None, "--metric")
    metric = " ".join(report.render(run(search=Search(0.02, own, None, POINTS))).split())
    assert "achieved a fall of 0.01, 2 networks tried" in metric
    assert "confirmed not at all: only --metric knows its images" in metric


def test_the_page_shows_what_a_search_was_asked_achieved_and_confirmed() -> None:
    page = report.REPORTS["html"](run(search=SEARCH))
    for lead, text in falls.told(SEARCH):
        assert f"<b>{lead}:</b> {text}" in page
    assert "budget met" not in page
    assert "asked a fall of at most 1.0 pp" in page
