"""Stopper: a child process with a run that is stopped at one of its steps, or when it writes one of its files."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Kind of a stop -> the places in which it happens: the process is killed, interrupted; the disk is full, or that of
#: the cache.
KINDS = {"kill": ("step", "out", "cache", "tmp"), "interrupt": ("step", "out", "cache", "tmp"),
         "full": ("out", "tmp"), "cache": ("cache",)}  # fmt: skip
#: Event of Python -> the index of the path that it writes among its arguments.
_EVENTS = {"open": 0, "os.rename": 1, "os.link": 1, "os.mkdir": 0, "os.remove": 0}
_WRITES = os.O_WRONLY | os.O_RDWR


class Stopper:
    """Counts the points where a run can be stopped, and stops it at one of them.

    Attributes:
        here: the folder with out/, cache/ and tmp/, in which files count; "" while nothing is counted.
        kind: of the stop, one of `KINDS`.
        at: the number of the point, from 1; a full disk stays full after it. 0: at none.
        points: labels of the points so far: "step score", "out open run.json", …
    """

    def __init__(self) -> None:
        from pfpcli.progress import Console

        self.here, self.kind, self.at = "", "kill", 0
        self.points: list[str] = []
        step = Console.step

        def counted(console: Console, name: str) -> Any:
            self._point("step", name)
            return step(console, name)

        Console.step = counted  # type: ignore[method-assign]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.here or event not in _EVENTS:
            return
        path = args[_EVENTS[event]]
        if not isinstance(path, str | bytes | os.PathLike) or (event == "open" and not args[2] & _WRITES):
            return
        if event in ("os.mkdir", "os.remove") and os.path.lexists(path) == (event == "os.mkdir"):
            return  # nothing is done
        if event == "os.remove" and args[1] != -1:
            return  # of a tree that is removed
        place, _, rest = os.path.relpath(os.fsdecode(path), self.here).partition("/")
        if place in KINDS["kill"]:
            self._point(place, f"{event.removeprefix('os.')} {os.path.basename(rest)}")

    def _point(self, place: str, what: str) -> None:
        if not self.here:
            return
        label = f"{place} {what}"
        if what.startswith("open ") and self.points[-1:] == [label]:
            return  # Python tells twice of a file that an opener opens
        self.points.append(label)
        if not self.at or not happens(self.kind, label):
            return
        if self.kind in ("full", "cache"):
            if len(self.points) >= self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        elif len(self.points) == self.at:
            os.kill(os.getpid(), signal.SIGKILL if self.kind == "kill" else signal.SIGINT)


def happens(kind: str, point: str) -> bool:
    """Whether a stop of a kind can happen at a point.

    A disk that is full refuses what is new. An interrupt while a draft is removed is left out: the draft stays for the
    next run, as after a kill.
    """
    place, what = point.split()[:2]
    is_refused = kind not in ("full", "cache") or what in ("open", "mkdir", "link")
    return place in KINDS[kind] and is_refused and (kind, what) != ("interrupt", "remove")


def forked(work: Callable[[], int], printed: Path | None = None) -> tuple[int, str]:
    """Do work in a child process.

    Args:
        work: returns the exit code.
        printed: file for the standard output; None: it comes with the other.

    Returns:
        The exit code, or the negative number of the signal that ended the process; and what was said.
    """
    heard, said = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        with contextlib.suppress(BaseException):
            os.dup2(said if printed is None else os.open(printed, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
            os.dup2(said, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
            sys.stderr.flush()
        os._exit(code)
    os.close(said)
    with os.fdopen(heard, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
