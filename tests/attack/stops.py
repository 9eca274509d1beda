"""Stops: one small run, stopped at each of its steps, and at each time that it opens or moves a file.

A stop is a kill, an interrupt, or a disk that is full. Whatever it is, a run folder is there as a whole or not at all,
and the next run leaves nothing of it.

    python tests/attack/stops.py [--every N]

Prints how many stops there were of each kind, and each one that left something wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LINE = ["compress", "model.pt", "--calib", "imgs", "--keep", "0.6", "--criterion", "l2", "--allocate", "uniform",
        "--recover", "none", "--out", "out/run", "--threads", "1"]  # fmt: skip
#: The kinds of stops: the process is killed, interrupted, the disk is full.
KINDS = ("kill", "interrupt", "full")
#: No file may be larger than this many bytes; sizes of the files of the run lie between them.
SIZES = (0, 200, 1000, 3000, 6000, 10_000, 15_000, 20_000, 30_000)


class Stopper:
    """Counts the points where a run can be stopped, and stops it at one of them."""

    def __init__(self) -> None:
        from pfpcli.progress import Console

        self.here, self.at, self.kind, self.count = "", -1, "", 0
        step = Console.step

        def counted(console: Console, name: str) -> Any:
            self.point(full=False)
            return step(console, name)

        Console.step = counted  # type: ignore[method-assign]
        sys.addaudithook(self._hear)

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if not self.here or event not in ("open", "os.rename", "os.mkdir"):
            return
        if event == "open" and not int(str(args[2])) & (os.O_WRONLY | os.O_RDWR):
            return
        if os.path.abspath(str(args[0])).startswith(self.here):
            self.point(full=True)

    def point(self, *, full: bool) -> None:
        self.count += 1
        if self.count != self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def forked(work: Callable[[], int]) -> tuple[int, str]:
    """Do work in a child process; returns its status as `os.waitpid` does, and what it said."""
    heard, said = os.pipe()
    child = os.fork()
    if not child:
        code = 99
        with contextlib.suppress(BaseException):
            os.dup2(said, 1)
            os.dup2(said, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
            sys.stderr.flush()
        os._exit(code)
    os.close(said)
    with os.fdopen(heard, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    return os.waitpid(child, 0)[1], text


def wrong(stopper: Stopper, kind: str, at: int) -> str:
    """Stop a run in the working directory at a point or a size of files; returns what is wrong afterwards, or ""."""
    from pfpcli.cli.main import run

    shutil.rmtree("out", ignore_errors=True)

    def stopped() -> int:
        if kind == "size":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
        stopper.kind, stopper.at, stopper.count, stopper.here = kind, at, 0, os.getcwd()
        return run(LINE)

    status, text = forked(stopped)
    done = Path("out/run/run.json").exists()
    left = [path.name for path in Path("out").glob("*")] if Path("out").exists() else []
    if kind == "kill":
        if done != Path("out/run").exists():
            return f"half a run folder: {left}"
        forked(lambda: run(LINE))
        left = sorted(path.name for path in Path("out").glob("*"))
        return "" if left == (["run", "run-2"] if done else ["run"]) else f"the next run leaves {left}"
    if status == 0:
        return "" if done and left == ["run"] else f"done, but there is {left}"
    if left or Path("out").exists():
        return f"leaves {left}"
    wanted = "interrupted" if kind == "interrupt" else "error: "
    is_said = wanted in text and "Traceback" not in text and "bug in pfp" not in text
    return "" if is_said else f"says {text[-200:]!r}"


def results(every: int = 1) -> Iterator[tuple[str, int, str]]:
    """Yield (kind, point or size, what is wrong or ""); only each `every`-th."""
    sys.path[:0] = [str(HERE.parent)]
    import torch

    import commands
    from forked import PRUNING
    from pfpcli.cli.main import run

    exec(PRUNING, {})  # the runs are forked
    torch.set_num_threads(1)
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        counted = Path(folder) / "count"
        Path(folder, "work").mkdir()
        os.chdir(Path(folder, "work"))
        try:
            torch.save(commands.plain(), "model.pt")
            commands.draw(Path("imgs"), 8, 16)
            stopper = Stopper()

            def whole() -> int:
                stopper.here = os.getcwd()
                code = run(LINE)
                counted.write_text(str(stopper.count))
                return code

            status, text = forked(whole)
            assert status == 0, text
            points = range(1, int(counted.read_text()) + 1)
            cases = [(kind, point) for point in points for kind in KINDS] + [("size", size) for size in SIZES]
            for kind, at in cases[::every]:
                yield kind, at, wrong(stopper, kind, at)
        finally:
            os.chdir(before)


def main() -> int:
    """Stop runs, and print what came of it; returns 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="only each N-th of the stops")
    counts, failed = Counter[str](), False
    for kind, at, found in results(parser.parse_args().every):
        counts[kind] += 1
        if found:
            failed = True
            print(f"{kind} at {at}: {found}", flush=True)
    print(", ".join(f"{count} by {kind}" for kind, count in counts.items()))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
