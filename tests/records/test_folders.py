"""Run folders: nothing that was computed is lost, nothing half-written stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pfpcli.errors import InputError
from pfpcli.records.folders import run_folder


def test_two_runs_of_one_name_both_stay(tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "run") as first:
        (first.path / "file").write_text("first")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "file").write_text("second")
    assert first.name == str(tmp_path / "run-2")
    assert (tmp_path / "run" / "file").read_text() == "second"
    assert (tmp_path / "run-2" / "file").read_text() == "first"


def test_the_folder_of_a_killed_run_is_removed_by_the_next_one(tmp_path: Path) -> None:
    with run_folder(tmp_path / "run", "run") as mine:
        abandoned = mine.path.with_name(mine.path.name.replace(str(os.getpid()), "99999999"))
        abandoned.mkdir()
        with run_folder(tmp_path / "other", "other"):
            pass
        assert not abandoned.exists()
        assert mine.path.exists()


def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--out run: No space left"), run_folder(tmp_path / "run", "run"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())
