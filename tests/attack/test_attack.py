"""A slice of the attacks; `make attack` runs ten thousand."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from commands import ENV
from forked import CAN_FORK, PRUNING, Server

pytestmark = pytest.mark.skipif(not CAN_FORK, reason="files are read, and runs are stopped, in forked processes")

HERE = Path(__file__).parent
PATHS = {"PYTHONPATH": os.pathsep.join([ENV["PYTHONPATH"], str(HERE.parent), str(HERE)])}


def printed(program: str, *args: str) -> str:
    """What a program of this folder printed; nothing went wrong."""
    run = f"import {program}\ncode = {program}.main()"
    done = Server(ENV | PATHS, PRUNING, run).run(*args, cwd=HERE)
    assert done.code == 0, done.out + done.err
    return done.out


def attacked(kind: str, cases: int) -> str:
    """What the attack of files of one kind printed."""
    return printed("attack", "--cases", str(cases), "--only", kind)


def test_a_mutated_file_works_or_is_refused_with_an_error_that_pfp_means() -> None:
    counted = [line for line in printed("attack", "--cases", "60").splitlines() if "cases:" in line]
    assert sum(int(line.split()[1]) for line in counted) == 60
    assert any(int(line.split()[3]) for line in counted)  # some are refused


def test_a_changed_network_is_cut_right_or_refused() -> None:
    found = re.search(r"(\d+) cut, +0 wrong", attacked("cut.onnx", 12))
    assert found
    assert int(found[1]) >= 6


def test_what_an_interrupted_run_has_left_is_taken_as_it_was_kept_or_not_at_all() -> None:
    assert re.search(r"started run +8 cases: .* 0 wrong", attacked("started run", 8))


def test_a_command_that_is_stopped_anywhere_leaves_something_whole_or_nothing() -> None:
    found = printed("stops", "--every", "40", "--only", "sweep", "--only", "plan")
    counted = [line for line in found.splitlines() if "stops:" in line]
    assert len(counted) == 2
    assert all(
        re.search(rf" [1-9]\d* by {kind}", line)
        for line in counted
        for kind in ("kill", "interrupt", "full", "cache", "size")
    )
