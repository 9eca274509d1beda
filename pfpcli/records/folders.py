"""Run folders: their files, the newest one, and how a new one is written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pfpcli import processes
from pfpcli.errors import InputError

#: Kind of a file -> its name in a run folder.
FILES = {"onnx": "model.onnx", "pt2": "model.pt2", "pt": "model.pt", "plan": "plan.json", "run": "run.json"}

#: The folder of the run folders that the user does not name.
RUNS = Path("pfp-runs")


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


@contextmanager
def run_folder(wanted: Path | None, name: str) -> Iterator[tuple[Path, str]]:
    """Make a folder for a run; it gets its final name only when everything in it is finished.

    An exception removes the folder and the parents made for it. Of several processes, only the first one writes a run
    folder; the others get a temporary folder, which is removed.

    Args:
        wanted: the folder that the user named, or None.
        name: name of the folder in pfp-runs where the user named none.

    Yields:
        (folder to write into, name that it gets in the end; a number is added to the name of an existing folder).

    Raises:
        InputError: the folder cannot be written.
    """
    if processes.rank():
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary), name
        return
    target = wanted or RUNS / name
    new_parents = [parent for parent in target.parents if not parent.exists()]
    draft = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        _remove(new_parents)
        raise InputError(
            f"--out {target.name}: cannot write there ({error.strerror})", "name a folder you may write to with --out"
        ) from error
    try:
        final = _unused(target)
        yield draft, str(final)
        draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        _remove(new_parents)
        raise


def _unused(target: Path) -> Path:
    """Return the path, with a number added if something exists there."""
    number, path = 2, target
    while path.exists():
        path = target.with_name(f"{target.name}-{number}")
        number += 1
    return path


def _remove(folders: list[Path]) -> None:
    """Remove folders, innermost first, until one is not empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
