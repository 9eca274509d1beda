"""A slice of the attacks; `make attack` runs ten thousand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ATTACK, STOPS = (Path(__file__).with_name(name) for name in ("attack.py", "stops.py"))


def test_a_mutated_file_works_or_is_refused_with_an_error_that_pfp_means() -> None:
    done = subprocess.run(
        [sys.executable, str(ATTACK), "--cases", "60"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [line for line in done.stdout.splitlines() if "cases:" in line]
    assert sum(int(line.split()[1]) for line in counted) == 60
    assert any(int(line.split()[3]) for line in counted)  # some are refused


def attacked(kind: str, cases: int) -> str:
    """What the attack of files of one kind printed; nothing went wrong."""
    done = subprocess.run(
        [sys.executable, str(ATTACK), "--cases", str(cases), "--only", kind],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_changed_network_is_cut_right_or_refused() -> None:
    found = re.search(r"(\d+) cut, +0 wrong", attacked("cut.onnx", 12))
    assert found
    assert int(found[1]) >= 6


def test_what_an_interrupted_run_has_left_is_taken_as_it_was_kept_or_not_at_all() -> None:
    assert re.search(r"started run +8 cases: .* 0 wrong", attacked("started run", 8))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are stopped in forked processes")
def test_a_command_that_is_stopped_anywhere_leaves_something_whole_or_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(STOPS), "--every", "24", "--only", "sweep", "--only", "plan"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [line for line in done.stdout.splitlines() if "stops:" in line]
    assert len(counted) == 2
    assert all(
        re.search(rf" [1-9]\d* by {kind}", line)
        for line in counted
        for kind in ("kill", "interrupt", "full", "cache", "size")
    )
