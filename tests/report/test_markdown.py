"""The report as Markdown: what a pull request needs, in tables that names cannot break."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pfpcli.records.parts import LayerRow
from pfpcli.records.runs import AnyRun
from pfpcli.report import REPORTS
from pfpcli.report.markdown import plain, render
from runs import failed, layers, run, sparse_run, tuned_run, warned


def test_the_verdict_the_figures_and_the_checks_come_first() -> None:
    lines = render(run()).splitlines()
    assert lines[0] == "**PASS** model.pt: 54.6 % of the parameters (asked 54.6 %), all checks hold"
    assert lines[2:5] == [
        "|  | before | after | change |  |",
        "|---|--:|--:|--:|---|",
        "| parameters | 194.6 k | 106.2 k | −45.4 % |  |",
    ]
    assert "- cut ≡ masked: 3.1e-15 (at most 1e-9)" in lines
    assert "- not pruned: output of the model, input of the model" in lines


def test_the_layers_that_changed_are_folded() -> None:
    text = render(run())
    assert "<details><summary>12 of 14 layers changed</summary>" in text
    assert (
        "| layer1.0.conv2 | conv2d | 16 → 10 | 16 | 2.30 k → 1.44 k | 2.36 M → 1.47 M | "
        "width 10 leaves the blocked layout; 8 or 12 would not |"
    ) in text
    assert "| linear |" not in text


def test_a_check_that_failed_and_every_warning_is_said() -> None:
    assert "- FAILED: onnx ≠ torch: 3.1e-2 (at most 1e-4)" in render(failed()).splitlines()
    assert sum(line.startswith("- warning: ") for line in render(warned(3)).splitlines()) == 3


@pytest.mark.parametrize("made", [run(), sparse_run(), tuned_run()], ids=lambda made: made.kind)
def test_every_kind_of_run_has_one_table_of_figures(made: AnyRun) -> None:
    lines = REPORTS["markdown"](made).splitlines()
    assert lines[0].startswith("**PASS** ")
    assert lines[3].startswith("|---|")


def test_a_name_cannot_break_a_table_or_call_somebody() -> None:
    row = LayerRow("a|b\n<img src=x>@you [x](y)", "conv2d", (8, 4), (8, 4), (64, 16), (64, 16))
    lines = render(run(layers=[*layers(), row])).splitlines()
    found = next(line for line in lines if line.startswith(r"| a\|b"))
    assert found.startswith(r"| a\|b \<img src=x\>\@you \[x\](y) | conv2d | 8 → 4 |")


def test_control_characters_are_replaced() -> None:
    assert plain("a\x1b[31mb") == r"a?\[31mb"


def test_a_run_without_changed_layers_has_no_list_of_them() -> None:
    same = [replace(row, params=(1, 1), macs=(1, 1)) for row in layers()]
    assert "<details>" not in render(run(layers=same))
