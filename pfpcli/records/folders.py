"""Folders: where runs lie, and what is kept between them. Imports no torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pfpcli import processes
from pfpcli.errors import InputError
from pfpcli.records.record import FILES

#: Where runs go when no folder is named.
RUNS = Path("pfp-runs")


def newest(runs: Path = RUNS) -> Path:
    """The folder of the run that was finished last.

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
    """A folder to write a run into; it appears under its own name only when everything in it is finished.

    An exception takes everything back. Of several processes the first one writes; the others get a folder that goes.

    Args:
        wanted: the folder the user named, or None.
        name: what it is called in pfp-runs otherwise.

    Yields:
        (folder to write into, the name it will get: never one that exists).

    Raises:
        InputError: nothing can be written there.
    """
    if processes.rank():
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere), name
        return
    target = wanted or RUNS / name
    made = [parent for parent in target.parents if not parent.exists()]
    draft = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        draft.mkdir(parents=True)
    except OSError as error:
        _remove(made)
        raise InputError(
            f"--out {target.name}: cannot write there ({error.strerror})", "name a folder you may write to with --out"
        ) from error
    try:
        final = _unused(target)
        yield draft, str(final)
        draft.rename(final)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        _remove(made)
        raise


def _unused(target: Path) -> Path:
    number, path = 2, target
    while path.exists():
        path = target.with_name(f"{target.name}-{number}")
        number += 1
    return path


def _remove(folders: list[Path]) -> None:
    """Take back the folders that were made on the way, innermost first, as far as they are empty."""
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return
