"""`pfp compare-criteria`: several criteria at several budgets, one table and one chart."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.cli import main as cli
from pfpcli.report import chart


@pytest.fixture
def args(tmp_path: Path) -> list[str]:
    torch.manual_seed(0)
    torch.save(nn.Sequential(nn.Conv2d(3, 9, 3), nn.ReLU(), nn.Conv2d(9, 4, 3), nn.Flatten()), tmp_path / "net.pt")
    (tmp_path / "imgs").mkdir()
    for i in range(8):
        np.save(tmp_path / "imgs" / f"{i}.npy", torch.randn(3, 8, 8).numpy())
    files = [str(tmp_path / "net.pt"), "--calib", str(tmp_path / "imgs"), "--out", str(tmp_path / "out")]
    return ["compare-criteria", *files, "--keeps", "0.8,50%", "--task", "classify"]


def test_every_criterion_is_tried_at_every_budget(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*args, "--criteria", "pfp,pfp-mixed", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found.pop("folder") == str(tmp_path / "out")
    assert [(p["criterion"], p["keep"]) for p in found["points"]] == [
        ("pfp", 0.8), ("pfp", 0.5), ("pfp-mixed", 0.8), ("pfp-mixed", 0.5),
    ]  # fmt: skip
    for point in found["points"]:
        assert abs(point["macs"] - point["keep"]) < 0.1
        assert 0 <= point["quality"] <= 1
    assert json.loads((tmp_path / "out" / "comparison.json").read_text(encoding="utf-8")) == found


def test_the_table_has_a_row_for_each_criterion_and_a_column_for_each_budget(
    args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*args, "--criteria", "pfp,pfp-rand"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("net.pt: agreement on 2 held-out images")
    assert lines[2].split() == ["keep", "of", "the", "MACs", "80.0", "%", "50.0", "%", "scored", "in"]
    assert [line.split()[0] for line in lines[4:]] == ["pfp", "pfp-rand"]
    page = (tmp_path / "out" / "comparison.md").read_text(encoding="utf-8")
    assert page.splitlines()[0] == "| keep of the MACs | 80.0 % | 50.0 % | scored in |"
    assert {len(line.split("|")) for line in page.splitlines()} == {6}


def test_the_chart_is_an_svg_with_a_line_and_a_name_for_each_criterion(args: list[str], tmp_path: Path) -> None:
    assert cli.run([*args, "--criteria", "pfp,pfp-rand"]) == 0
    root = ElementTree.fromstring((tmp_path / "out" / "comparison.svg").read_text(encoding="utf-8"))
    texts = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"pfp", "pfp-rand", "MACs kept, %", "agreement, %"} <= set(texts)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--criteria", "pfp,best"], "--criteria best: expected some of auto, pfp, "),
        (["--keeps", "0.5,2"], "--keeps 2: expected a fraction above 0 and at most 1"),
        (["--keeps", "0.5,x"], "--keep x: expected a number"),
    ],
)
def test_bad_lists_are_refused_and_nothing_is_written(
    flags: list[str], message: str, args: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*args, *flags]) == 2
    assert f"error: {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_in_a_chart_are_text_and_do_not_overlap() -> None:
    drawn = chart.lines("a <b>", "x", "y", [chart.Line(f"<{i}>", [(0, 1), (1, 1)]) for i in range(9)])
    root = ElementTree.fromstring(drawn)
    names = [n for n in root.iter() if n.tag.endswith("text") and (n.text or "").startswith("<")]
    heights = sorted(float(n.attrib["y"]) for n in names)
    assert len(names) == 9
    assert min(b - a for a, b in pairwise(heights)) >= 14


def test_lines_of_one_colour_have_other_marks() -> None:
    drawn = chart.lines("a", "x", "y", [chart.Line(str(i), [(0, i)]) for i in range(13)])
    root = ElementTree.fromstring(drawn)
    marks = [(n.attrib["fill"], n.attrib["d"]) for n in root.iter() if "transform" in n.attrib and "d" in n.attrib]
    assert len(marks) == 26  # a point and its name's
    assert len(set(marks)) == 13
