"""The line after the verdict says what helps a network whose quality fell."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from commands import sample_file, sample_images
from distilled import case, undecided
from pfpcli.cli import main as cli
from pfpcli.jobs import advice
from pfpcli.jobs.steps.judge import LOSS
from pfpcli.records.parts import Quality

WORSE = Quality("accuracy", 0.9, 0.7, 0.7, 100, "held-out images", 0.5, 10, (10, 10))


def test_a_network_that_works_gets_no_advice(tmp_path: Path) -> None:
    division = case(undecided(), tmp_path).division
    good = replace(WORSE, after=0.9 - LOSS / 2)
    assert advice.after_pruning(good, 0.5, division, criterion="pfp", has_trained=False) == ""
    assert advice.after_sparsifying(good) == ""


def test_each_means_is_named_where_it_was_not_used(tmp_path: Path) -> None:
    division = case(undecided(), tmp_path).division
    said = advice.after_pruning(WORSE, 0.65, division, criterion="pfp", has_trained=False)
    for means in ("--keep 0.65", "--criterion obs", "--recover lsq,distill --minutes 5", f"to {len(division.fitted)};"):
        assert means in said
    said = advice.after_pruning(WORSE, None, division, criterion="obs", has_trained=True)
    assert "--criterion" not in said
    assert "train longer (--minutes)" in said
    assert "keep more (--keep);" in said


@pytest.mark.parametrize(("after", "share"), [(0.89, 1.0), (0.9 - LOSS, 1.0), (0.9 - 4 * LOSS, 0.25)])
def test_the_share_of_the_loss_to_keep_is_that_of_the_limit(after: float, share: float) -> None:
    assert advice.share_to_keep(replace(WORSE, after=after)) == pytest.approx(share)


def test_the_keep_that_is_said_to_be_enough_is_shown_after_the_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sample_images(tmp_path / "imgs", 12)
    args = ["compress", str(sample_file(tmp_path)), "--calib", str(images), "--keep", "0.1", "--criterion", "l2"]
    assert cli.run([*args, "--recover", "none", "--threads", "1", "--out", str(tmp_path / "run")]) in (0, 1)
    said = capsys.readouterr().out
    # the verdict may go on in a second line
    assert re.search(r"(?m)^(?:WORSE|FAILED)  .*\n(?:.*\n)?  what helps: keep more \(--keep 0\.", said), said
