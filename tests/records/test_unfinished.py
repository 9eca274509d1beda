"""Folders of several runs: they stay after an interrupt, and only who made them goes on in them."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from pfpcli.errors import InputError
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


def test_a_folder_is_never_there_without_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, *args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", interrupted)
    with pytest.raises(KeyboardInterrupt), unfinished(tmp_path / "a" / "sweep", "key"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_mark_that_cannot_be_written_anew_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = interrupted(tmp_path / "sweep", "key")

    def full(path: Path, *args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match="--out sweep: cannot write"), unfinished(tmp_path / "sweep", "key"):
            pass
    with unfinished(tmp_path / "sweep", "key") as again:
        assert again == folder


HOSTILE = [f"key {HOST} {'9' * 5000}", f"key {HOST} \u00b2"]


@pytest.mark.parametrize("text", ["", "key", f"key {HOST} process", "key elsewhere 1", "\x00", *HOSTILE])
def test_a_mark_that_cannot_be_read_is_no_mark(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / MARK).write_text(text, encoding="utf-8")
    with unfinished(tmp_path / "sweep", "key") as folder:
        assert folder.name == "sweep-2"
