"""Run folders: their files, the newest one, and how a new one is written."""

from __future__ import annotations

import errno
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

from pfpcli import processes
from pfpcli.errors import InputError

#: Kind of a file -> its name in a run folder.
FILES = {
    "onnx": "model.onnx",
    "pt2": "model.pt2",
    "pt": "model.pt",
    "plan": "plan.json",
    "run": "run.json",
    "details": "details.json",
    "page": "report.html",
}
#: The files that are made from everything else, so they are written last.
LAST = ("run", "details", "page")

#: What `pfp sweep` writes beside its run folders: their comparison, and the page of it.
SWEEP, SWEEP_PAGE = "sweep.json", "sweep.html"

#: What `pfp compare-criteria` writes: its record, a table, and a chart.
COMPARISON, COMPARISON_TABLE, COMPARISON_CHART = "comparison.json", "comparison.md", "comparison.svg"

#: Precision below float32 -> the name of its file, which is written where it is asked for.
PRECISIONS = {"int8": "model-int8.onnx", "fp16": "model-fp16.onnx"}

#: The folder of the run folders that the user does not name.
RUNS = Path("pfp-runs")

#: What the system says where a folder has no room: the disk is full, or the user may not write so much.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Name of this machine, since the folder of a run may lie on a disk that other machines write to as well.
HOST = re.sub(r"\W", "-", platform.node())


def newest(runs: Path = RUNS) -> Path:
    """Return the folder of the run that was finished last.

    Raises:
        InputError: there is no run yet.
    """
    found = [(run.stat().st_mtime_ns, run.parent) for run in runs.glob(f"*/{FILES['run']}")]
    if not found:
        raise InputError(
            f"no run in {runs.name}/ of this folder",
            "make one with `pfp compress model.pt --calib ./imgs --keep 0.4`, or name a run folder",
        )
    return max(found)[1]


def folder_of(path: Path) -> Path:
    """Return the folder of a run.

    Args:
        path: the run folder, or its run.json.
    """
    return path.parent if path.name == FILES["run"] else path


def page_from(run: Path, base: Path) -> str:
    """Return the address of the page of a run, relative to a folder; "" where it has none or lies outside of it.

    Args:
        run: the run folder.
        base: the folder of the file that links to the page.
    """
    # os.path leaves symbolic links as they are, since a browser does not follow them either
    page, below = Path(os.path.abspath(run), FILES["page"]), os.path.abspath(base)
    if not page.is_relative_to(below) or not page.is_file():
        return ""
    return "./" + quote(os.fsencode(page.relative_to(below).as_posix()))


@dataclass
class Draft:
    """A run folder while it is written.

    Attributes:
        path: the folder to write into.
        name: path of the folder that it becomes; final once the folder is finished.
    """

    path: Path
    name: str


@contextmanager
def run_folder(wanted: Path | None, name: str) -> Iterator[Draft]:
    """Make a folder for a run; it gets its final name only when everything in it is finished.

    If something has that name by then (another run was faster), a number is added to the name. An exception removes the
    folder and the parents made for it. Folders that killed runs of this machine left there are removed. Of several
    processes, only the first one writes a run folder; the others get a temporary folder, which is removed.

    Args:
        wanted: the folder that the user named, or None.
        name: name of the folder in pfp-runs where the user named none.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    if processes.rank():
        with tempfile.TemporaryDirectory() as temporary:
            yield Draft(Path(temporary), name)
        return
    target = wanted or RUNS / name
    new_parents = [parent for parent in target.parents if not parent.exists()]
    draft = target.parent / f".{target.name}.{HOST}.{os.getpid()}.partial"
    made = Draft(draft, str(target))
    try:
        _make(draft, target.name)
        _remove_abandoned(target.parent)
        yield made
        made.name = str(_settled(draft, target))
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        _remove(new_parents)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise InputError(
                f"--out {target.name}: {error.strerror}", "make room there, or name a folder on another disk with --out"
            ) from error
        raise


def write_new(target: Path, write: Callable[[IO[bytes]], object], flag: str = "--out") -> Path:
    """Write a file that never overwrites another: a number is added to its name if something has it.

    The file gets its name only when it is whole. What killed runs of this machine left there is removed.

    Args:
        target: the file that the user named.
        write: writes the content.
        flag: that names the file, for the message.

    Raises:
        InputError: the file cannot be written.
    """
    new_parents = [parent for parent in target.parents if not parent.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _draft(target) as draft:
            with draft.open("wb") as file:
                write(file)
            while True:
                path = unused(target, is_file=True)
                with suppress(FileExistsError):
                    _name(draft, path)
                    return path
    except BaseException as error:
        _remove(new_parents)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{flag} {target.name}: cannot write there ({error.strerror})", f"name a file you may write to with {flag}"
        ) from error


def replace_file(path: Path, content: str) -> None:
    """Write a file of an unfinished folder, over the one before; a kill leaves that one, or none.

    Raises:
        OSError: the file cannot be written.
    """
    with _draft(path) as draft:
        draft.write_text(content, encoding="utf-8")
        draft.replace(path)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """Yield a path beside a file for its content, which nothing is left of; remove what killed runs left there."""
    draft = target.with_name(f".{target.name[:100]}.{HOST}.{os.getpid()}.partial")
    _remove_abandoned(target.parent)
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def _name(draft: Path, path: Path) -> None:
    """Give a finished file a name that nothing has; a rename would overwrite a file of another run.

    Raises:
        FileExistsError: something has the name.
    """
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a disk without hard links
        path.open("x").close()
        draft.replace(path)


def _make(draft: Path, name: str) -> None:
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"--out {name}: cannot write there ({error.strerror})", "name a folder you may write to with --out"
        ) from error


def _settled(draft: Path, target: Path) -> Path:
    """Give a finished folder its name, and return its path."""
    while True:
        final = unused(target)
        try:
            return draft.rename(final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise


def _remove_abandoned(parent: Path) -> None:
    """Remove what runs of this machine left unfinished whose process is gone."""
    for folder in parent.glob(f".*.{HOST}.*.partial"):
        number = folder.name.split(".")[-2]
        if number.isdecimal() and int(number) != os.getpid() and not runs(int(number)):
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                folder.unlink()  # a file


def runs(process: int) -> bool:
    """Whether another process of this machine has this number."""
    if process <= 0:  # for the system, a group of processes
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of somebody else
        return True
    return process != os.getpid()


def unused(target: Path, *, is_file: bool = False) -> Path:
    """Return the path, with a number added if something exists there; of a file, before its suffix."""
    number, path = 2, target
    while path.exists():
        path = target.with_name(f"{target.stem}-{number}{target.suffix}" if is_file else f"{target.name}-{number}")
        number += 1
    return path


def _remove(folders: list[Path]) -> None:
    """Remove folders, innermost first, until one is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
