"""Unfinished folders: a folder of several runs stays after an interrupt, and the same command goes on in it.

While it is unfinished, a folder has a file that says by a key what it is made of, and which process works on it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.records.folders import HOST, replace_file, run_folder, runs

#: The file in an unfinished folder.
MARK = ".unfinished"


@contextmanager
def unfinished(target: Path, key: str) -> Iterator[Path]:
    """Yield the folder of several runs: an unfinished one of the same key, or a new one.

    If something has the name, a number is added to it. The folder stays after an exception if there is a run in it.

    Args:
        target: the folder that the user named, or one in pfp-runs.
        key: of everything that the runs are made of.

    Raises:
        InputError: the folder cannot be written.
    """
    new_parents = [parent for parent in target.parents if not parent.exists()]
    folder = _marked(target, key)
    mark = folder / MARK
    try:
        yield folder
        mark.unlink()
    except BaseException:
        if {each.name for each in folder.iterdir()} <= {MARK}:
            with suppress(OSError):
                mark.unlink()
                for each in (folder, *new_parents):
                    each.rmdir()
        raise


def _marked(target: Path, key: str) -> Path:
    """Return a folder that has the mark of this process: a folder is never there without a whole mark."""
    text, left = f"{key} {HOST} {os.getpid()}\n", _left(target, key)
    try:
        if left is not None:
            replace_file(left / MARK, text)
            return left
        with run_folder(target, target.name) as draft:
            (draft.path / MARK).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--out {target.name}: cannot write there ({error.strerror})", "name a folder you may write to with --out"
        ) from error
    return Path(draft.name)


def _left(target: Path, key: str) -> Path | None:
    """Return a folder that was left unfinished with this key, and on which no process of this machine works."""
    for folder in sorted(target.parent.glob(f"{glob.escape(target.name)}*")):
        try:
            found, host, number = (folder / MARK).read_text(encoding="utf-8").split()
            process = int(number)
        except (OSError, ValueError):
            continue
        if (found, host) == (key, HOST) and not runs(process):
            return folder
    return None
