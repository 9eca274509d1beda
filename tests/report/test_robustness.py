"""The table of damaged images, and the sentence that says where the network is worse than its headline."""

from __future__ import annotations

from pfpcli.records.robustness import Damage, Robustness
from pfpcli.report import REPORTS
from pfpcli.report.robustness import sentence
from pfpcli.report.run import render, summary
from runs import run

MARGINS = [0.03] * 5
NOISE = Damage("noise", [0.1] * 5, [0.9, 0.88, 0.8, 0.7, 0.5], [0.87, 0.8, 0.66, 0.5, 0.4], MARGINS)
BLUR = Damage("blur", [1] * 5, [0.91, 0.9, 0.9, 0.9, 0.9], [0.89, 0.88, 0.88, 0.88, 0.86], MARGINS)
FOUND = Robustness("accuracy", "ImageNet-C", 256, "held-out images", 0.912, 0.898, [NOISE, BLUR])

TABLE = """\
  256 held-out images damaged at the strengths of ImageNet-C, before → after
  accuracy, %        1        2        3        4        5
  undamaged    91 → 90
  noise        90 → 87  88 → 80  80 → 66  70 → 50  50 → 40
  blur         91 → 89  90 → 88  90 → 88  90 → 88  90 → 86
  The network is worse than its fall on undamaged images (−1.4 pp) under noise
  (strength 4: −20.0 pp).
"""


def test_the_table_has_a_row_for_each_corruption_and_the_sentence_names_the_worst_strength() -> None:
    made = run(robustness=FOUND)
    assert TABLE in render(made)
    assert TABLE in summary(made)


def test_a_run_without_damaged_images_has_no_table() -> None:
    assert "damaged" not in render(run())


def test_a_larger_fall_within_chance_is_not_worse() -> None:
    calm = Robustness("accuracy", "ImageNet-C", 256, "held-out images", 0.912, 0.898, [BLUR])
    assert sentence(calm) == (
        "The network is nowhere worse than its fall on undamaged images (−1.4 pp), beyond chance."
    )


def test_without_labels_only_the_agreement_of_the_smaller_network_is_shown() -> None:
    damage = Damage("jpeg", [25] * 5, [1.0] * 5, [0.9, 0.89, 0.88, 0.87, 0.861], MARGINS)
    text = render(run(robustness=Robustness("agreement", "ImageNet-C", 256, "held-out images", 1.0, 0.918, [damage])))
    assert "  jpeg          90.0  89.0  88.0  87.0  86.1\n" in text
    assert "before → after" not in text


def test_the_full_report_has_a_decimal_more() -> None:
    assert "90.0 → 87.0" in render(run(robustness=FOUND), everything=True)


def test_a_narrow_page_leaves_strengths_out() -> None:
    text = render(run(robustness=FOUND), width=60, unicode=False)
    assert max(map(len, text.splitlines())) <= 60
    assert "70 -> 50" in text or "80 -> 66" in text


def test_the_page_and_the_markdown_say_where_the_network_is_worse() -> None:
    made = run(robustness=FOUND)
    page, text = REPORTS["html"](made), REPORTS["markdown"](made)
    assert "<h3>Damaged images</h3>" in page
    assert f"<td>{NOISE.corruption}</td>" in page
    assert sentence(FOUND) in text
