"""Folders of several runs: they stay after an interrupt, and only who made them goes on in them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from pfpcli.records.folders import HOST
from pfpcli.records.unfinished import MARK, unfinished


def interrupted(target: Path, key: str) -> Path:
    """A folder with a run in it, left by an interrupt."""
    with suppress(KeyboardInterrupt), unfinished(target, key) as folder:
        (folder / "run").mkdir()
        raise KeyboardInterrupt
    return folder


def test_a_finished_folder_has_no_mark_and_is_not_used_again(tmp_path: Path) -> None:
    with unfinished(tmp_path / "sweep", "key") as folder:
        (folder / "run").mkdir()
    assert {path.name for path in folder.iterdir()} == {"run"}
    with unfinished(tmp_path / "sweep", "key") as other:
        assert other.name == "sweep-2"


def test_an_interrupted_folder_is_used_again_for_the_same_key_alone(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "sweep", "key")
    with unfinished(tmp_path / "sweep", "another") as other:
        assert other.name == "sweep-2"
    with unfinished(tmp_path / "sweep", "key") as again:
        assert again == folder
        assert (again / "run").is_dir()


def test_a_folder_that_another_process_works_on_is_left_alone(tmp_path: Path) -> None:
    folder = interrupted(tmp_path / "sweep", "key")
    (folder / MARK).write_text(f"key {HOST} {os.getppid()}", encoding="utf-8")
    with unfinished(tmp_path / "sweep", "key") as other:
        assert other.name == "sweep-2"


def test_an_empty_folder_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path / "a" / "sweep", "key"):
        raise KeyboardInterrupt
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("text", ["", "key", f"key {HOST} process", "key elsewhere 1", "\x00"])
def test_a_mark_that_cannot_be_read_is_no_mark(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / MARK).write_text(text, encoding="utf-8")
    with unfinished(tmp_path / "sweep", "key") as folder:
        assert folder.name == "sweep-2"
