"""The table of precisions: files side by side, what stays in float32, and what could not be written."""

from __future__ import annotations

from dataclasses import replace

from pfpcli.records.parts import Quality, UserMetric
from pfpcli.records.precision import Precision
from pfpcli.report import REPORTS
from pfpcli.report.run import render, summary
from runs import run


def quality(after: float) -> Quality:
    return Quality("accuracy", 0.912, after, 0.9, 256, "held-out images", 0.2)


FLOAT = Precision("float32", "model.onnx", "", 645_120, 1.324, 0.04, quality(0.898), layers=14)
INT8 = Precision(
    "int8", "model-int8.onnx", "", 198_000, 0.662, 0.03, quality(0.888), None, 14, ["conv1", "linear"], 0.008, 64
)
FP16 = Precision("fp16", None, "its outputs move too far", layers=14)

TABLE = """\
  precision      size   latency         accuracy           layers
  float32    645.1 kB   1.32 ms           89.8 %
  int8       198.0 kB  0.662 ms  2.00×    88.8 %  −1.0 pp  12 of 14
  original 91.2 %; files timed in turn, median of 50
  int8 leaves in float32: conv1, linear
  fp16 not written: its outputs move too far
"""


def test_files_stand_side_by_side_with_what_stays_in_float32_and_why_a_file_is_missing() -> None:
    made = run(precisions=[FLOAT, INT8, FP16])
    assert TABLE in render(made)
    assert TABLE in summary(made)


def test_a_run_in_float32_alone_has_no_table() -> None:
    assert "precision" not in render(run())


def test_many_layers_in_float32_are_named_by_the_full_report_alone() -> None:
    made = run(precisions=[FLOAT, replace(INT8, in_float=[f"block{i}" for i in range(9)])])
    assert "block0, block1, block2 and 6 more" in render(made)
    assert "block8" in render(made, everything=True)


def test_a_metric_of_the_user_stands_in_the_place_of_the_quality() -> None:
    rows = [replace(FLOAT, metric=0.71), replace(INT8, metric=0.695), replace(FP16, file="x", why="", metric=None)]
    text = render(run(precisions=rows, metric=UserMetric("map50", 0.72, 0.71)))
    assert "map50" in text
    assert "0.695  -0.015" in text
    assert "original 0.72" in text


def test_a_narrow_page_leaves_columns_out() -> None:
    text = render(run(precisions=[FLOAT, INT8, FP16]), width=60, unicode=False)
    assert max(map(len, text.splitlines())) <= 60
    assert "198.0 kB" in text


def test_the_page_and_the_markdown_show_the_files_and_what_stays_in_float32() -> None:
    made = run(precisions=[FLOAT, INT8, FP16])
    page, text = REPORTS["html"](made), REPORTS["markdown"](made)
    assert "<h3>Precisions</h3>" in page
    assert "<td>fp16 not written" not in page
    assert "fp16 not written: its outputs move too far" in page
    assert "| int8 | 198.0 kB | 0.662 ms | 2.00× | 88.8 % | −1.0 pp | 12 of 14 |" in text
    assert "- int8 leaves in float32: conv1, linear" in text


def test_a_file_that_is_missing_alone_leaves_the_reason_on_the_page() -> None:
    assert "fp16 not written: its outputs move too far" in REPORTS["html"](run(precisions=[FLOAT, FP16]))
