"""Run folders: nothing that was computed is lost, nothing half-written stays."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import IO
from urllib.parse import unquote_to_bytes

import pytest

from pfpcli.errors import InputError
from pfpcli.records.folders import HOST, page_from, replace_file, run_folder, runs, write_new


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


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_folder_without_room_is_named_and_nothing_is_left(code: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"--out run: {os.strerror(code)}"), run_folder(tmp_path / "run", "run"):
        raise OSError(code, os.strerror(code))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["run", "a b#c?d%41", "javascript:alert(1)", "<b>\"'&", "é", "\udcff"])
def test_a_page_below_a_folder_has_an_address_that_leads_to_it(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sweep" / name
    folder.mkdir(parents=True)
    (folder / "report.html").touch()
    address = page_from(folder, tmp_path)
    assert re.fullmatch(r"\./sweep/[\w.%~-]+/report\.html", address, re.ASCII)
    assert Path(os.fsdecode(unquote_to_bytes(address.removeprefix("./")))) == Path("sweep", name, "report.html")


def test_a_page_that_lies_outside_or_is_not_there_has_no_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert page_from(Path("run"), Path()) == ""
    (tmp_path / "run" / "report.html").touch()
    assert page_from(Path("run"), Path()) == "./run/report.html"
    assert page_from(Path("here/../run"), Path()) == "./run/report.html"
    assert page_from(Path("run"), Path("here")) == ""
    monkeypatch.chdir(tmp_path / "run")
    assert page_from(Path(), Path()) == "./report.html"


def test_a_new_file_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "pack.pyz").write_text("precious")
    assert write_new(tmp_path / "pack.pyz", lambda file: file.write(b"new")) == tmp_path / "pack-2.pyz"
    assert (tmp_path / "pack.pyz").read_text() == "precious"
    assert (tmp_path / "pack-2.pyz").read_bytes() == b"new"


def test_a_new_file_that_cannot_be_finished_is_not_there(tmp_path: Path) -> None:
    def full(file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError, match=r"--pack pack\.pyz: cannot write there \(No space left on device\)"):
        write_new(tmp_path / "pack.pyz", full, "--pack")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [os, Path])
def test_a_new_file_has_its_name_only_when_it_is_whole(
    place: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place, "link" if place is os else "open", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_new(tmp_path / "new" / "plan.json", lambda file: file.write(b"{}"))
    assert not list(tmp_path.iterdir())


def test_a_disk_without_hard_links_has_new_files_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(draft: Path, path: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refused)
    (tmp_path / "plan.json").write_text("precious")
    assert write_new(tmp_path / "plan.json", lambda file: file.write(b"new")) == tmp_path / "plan-2.json"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "plan.json": "precious", "plan-2.json": "new"
    }  # fmt: skip


def test_the_draft_of_a_killed_command_is_removed_by_the_next_one(tmp_path: Path) -> None:
    abandoned = tmp_path / f".plan.json.{HOST}.99999999.partial"
    abandoned.touch()
    write_new(tmp_path / "plan.json", lambda file: file.write(b"{}"))
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    abandoned.touch()
    replace_file(tmp_path / "sweep.json", "{}")
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", "sweep.json"}


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "sweep.json", "before")

    def full(draft: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "sweep.json", "after")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    "number",
    [0, -1, 2**31, 2**70, 99_999_999, os.getpid()],
    ids=["zero", "negative", "32 bits", "70 bits", "unused", "its own"],  # the own one differs from process to process
)
def test_what_is_no_number_of_another_process_runs_not(number: int) -> None:
    assert not runs(number)


def test_another_process_runs() -> None:
    assert runs(os.getppid())
