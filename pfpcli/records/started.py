"""Started runs: what was typed, kept in the cache from the start of a run until the run is written.

Each run that has started and not finished has a folder in the cache. It holds the options of the command and, beside
them, the finished steps of the run (`pfpcli.jobs.step_store`). The cache belongs to the user alone; the folder in which
the run will lie may not. Options that let files run code are not kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from pfpcli.cache_folder import cache_folder, make_private, read_private, replace
from pfpcli.errors import InputError, PfpError
from pfpcli.records.document import Document
from pfpcli.records.folders import COMPARISON, COMPARISON_CHART, FILES, HOST, RUNS, SWEEP, runs

#: The file of the options in the folder of a started run.
OPTIONS = "options.json"
#: What an interrupted run has left is removed after this many days.
DAYS = 30

#: Value of an option, as JSON has it.
Value = bool | int | float | str | list[str] | None


@dataclass
class Started(Document):
    """A run that was started.

    Attributes:
        command: its command.
        options: name of a parameter of the command -> its value, typed or default.
        origins: name of a parameter -> where its value came from; those with their defaults are left out.
        code: flags that were typed and are not kept, because they let files run code.
        target: absolute path of the folder that the run is to become.
        inside: absolute path of the working directory, to which paths are relative.
        host, process: the machine and the process that the run was started in.
        schema_version: version of the fields. 1: the first one.
    """

    command: str
    options: dict[str, Value]
    origins: dict[str, str]
    code: list[str]
    target: str
    inside: str = field(default_factory=os.getcwd)
    host: str = HOST
    process: int = field(default_factory=os.getpid)
    schema_version: int = 1


def state_folder(command: str, target: Path, settings: Mapping[str, Any]) -> Path:
    """Return the folder in the cache of a run with these settings, which may not exist.

    Args:
        command: the command.
        target: the folder that the run is to become.
        settings: as `NetworkSettings.recorded` returns them.
    """
    told = json.dumps([command, os.path.abspath(target), settings], sort_keys=True)
    return _folders() / hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:32]


@contextlib.contextmanager
def started(run: Started, folder: Path) -> Iterator[None]:
    """Keep the options of a run within a `with` block, and after it if an interrupt or a crash ends the block.

    The options of a run that ends by itself, with a result or an error of the user's, are of no use any more.

    Args:
        run: the options.
        folder: the folder of the run in the cache.
    """
    remove_old()
    with suppress(OSError):
        make_private(folder)
        replace(folder / OPTIONS, run.json().encode())
    try:
        yield
    except PfpError:
        with suppress(OSError):
            (folder / OPTIONS).unlink()
            folder.rmdir()  # finished steps stay: the line may be typed again without the mistake
        raise
    forget(folder)


def find(run: Path, command: str) -> Started:
    """Return the newest run of a command that was started and has not finished.

    Args:
        run: the folder that the run was to become, as the user names it: a path, or its name in pfp-runs.
        command: the command.

    Raises:
        InputError: there is no such run, it has finished, or it is running.
    """
    targets = [os.path.abspath(each) for each in (run, RUNS / run)]
    known = [(each.stat().st_mtime_ns, found) for each in _folders().glob(f"*/{OPTIONS}") if (found := _read(each))]
    there = [found for _, found in sorted(known, key=lambda pair: pair[0]) if found.target in targets]
    if not there:
        raise _unknown(run, [found for _, found in known])
    found = next((each for each in reversed(there) if each.command == command), there[-1])
    if found.command != command:
        raise InputError(
            f"--resume {run}: was started by `pfp {found.command}`", f"type `pfp {found.command} --resume {run}`"
        )
    if found.host == HOST and runs(found.process):
        raise InputError(f"--resume {run}: is running (process {found.process})", "wait until it ends")
    if found.inside != os.getcwd():
        raise InputError(
            f"--resume {run}: was started in another folder, to which its paths are relative",
            f"go there first: `cd {found.inside}`",
        )
    return found


def _unknown(run: Path, known: list[Started]) -> InputError:
    for folder in (run, RUNS / run):
        if (folder / FILES["run"]).is_file() or (folder / SWEEP).is_file():
            return InputError(f"--resume {run}: this run has finished", f"look at it: `pfp report {folder}`")
        if (folder / COMPARISON).is_file():
            return InputError(
                f"--resume {run}: this comparison has finished", f"look at it: {folder / COMPARISON_CHART}"
            )
    names = [_relative(each.target) for each in known if not runs(each.process)]
    hint = (
        f"what can go on: {', '.join(sorted(names)[:5])}" if names else "nothing was interrupted: type the whole line"
    )
    return InputError(f"--resume {run}: no run of that name was interrupted", hint)


def _relative(target: str) -> str:
    here = Path(target)
    return str(here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here)


def _read(file: Path) -> Started | None:
    """Return the options in a file; None if it is not as pfp wrote it, or somebody else can write to it."""
    try:
        found = msgspec.json.decode(read_private(file), type=Started)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return found if found.schema_version == Started.schema_version else None


def forget(folder: Path) -> None:
    """Remove what is kept of a run."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_old() -> None:
    """Remove what runs have left that were interrupted long ago."""
    for folder in _folders().glob("*"):
        with suppress(OSError):
            if time.time() - folder.stat().st_mtime > DAYS * 86400:
                forget(folder)


def _folders() -> Path:
    return cache_folder() / "unfinished"
