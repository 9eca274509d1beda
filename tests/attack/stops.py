"""Stops: a small run of each command that writes, stopped at each of its steps, and each time that it writes.

A stop is a kill, an interrupt, or a disk that is full. Whatever it is, what the command writes is there as a whole or
not at all, the exit code and the one line are those of docs/security.md, and the next run goes on, leaves nothing of
the stopped one, and comes to the same as a run that was not stopped.

    python tests/attack/stops.py [--every N] [--only LINE]

Prints how many stops there were of each kind, by command line, and each one that left something wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path

from stopper import KINDS, Stopper, forked, happens

_NET, _QUICK = ["net.onnx", "--calib", "imgs"], ["--criterion", "l2", "--threads", "1"]
_EVEN = [*_QUICK, "--allocate", "uniform", "--recover", "none"]
_RUN, _PRINT = ["--out", "out/run"], ["--threads", "1", "--json"]
#: Name of a line -> its words. What a line prints goes to a file, if the line writes no other.
LINES = {
    "compress": ["compress", "model.pt", "--calib", "imgs", "--keep", "0.6", *_EVEN, *_RUN],
    "compress --int8 --fp16": ["compress", *_NET, "--keep", "0.6", *_QUICK, "--int8", "--fp16", *_RUN],
    "compress --max-drop": ["compress", *_NET, "--max-drop", "60%", "--task", "classify", *_EVEN, *_RUN],
    "compress --resume": ["compress", "--resume", "out/run"],
    "sweep": ["sweep", *_NET, "--keep", "0.8,0.6", *_EVEN, *_RUN],
    "sparsify": ["sparsify", *_NET, "--keep", "0.5", "--threads", "1", *_RUN],
    "finetune": ["finetune", "made", "--data", "classes", "--epochs", "1", "--threads", "1", *_RUN],
    "compare-criteria": ["compare-criteria", *_NET, "--criteria", "l1,l2", "--keeps", "0.6", "--threads", "1", *_RUN],
    "plan": ["plan", *_NET, "--keep", "0.6", *_QUICK, "--out", "out/plan.json"],
    "latency --pack": ["latency", "small.onnx", "--threads", "1", "--pack", "out/pack.pyz"],
    "score --csv": ["score", *_NET, *_QUICK, "--csv"],
    "bench --json": ["bench", "net.onnx", "made", *_PRINT],
    "verify --json": ["verify", "made", *_PRINT],
    "certify --json": ["certify", "made", *_NET, *_PRINT],
}
#: The line that is killed before "compress --resume" is typed, and the step at which.
FIRST, AT = LINES["compress --int8 --fp16"], "step export"
#: Commands that have --resume.
GO_ON = ("compress", "sweep", "sparsify", "finetune", "compare-criteria")
#: Beginnings of the names of files that are the same after each run.
_SAME = ("model.onnx", "model-", "plan.json")
#: What says that nothing was kept before a kill, or that nothing was left to do after it.
_NOTHING = ("no run of that name was interrupted", "this run has finished")


@dataclass(frozen=True)
class Whole:
    """What a line comes to that is not stopped.

    Attributes:
        words: of the line.
        prints: whether it prints its result, and writes no other file.
        points: labels of its points.
        names: folder below out/ -> the names in it.
        same: file below out/ -> its content, of those that are the same after each run.
        sizes: of all files that it writes, in bytes.
    """

    words: list[str]
    prints: bool
    points: list[str]
    names: dict[str, set[str]]
    same: dict[str, bytes]
    sizes: list[int]

    def cases(self, every: int) -> list[tuple[str, int]]:
        """Each `every`-th stop of a kind, the last first: (kind, point), or ("size", bytes that a file may have)."""
        numbered = [*enumerate(self.points, 1)]
        found = [(kind, number) for kind in KINDS for number, point in numbered if happens(kind, point)]
        found += [("size", max(0, size - 1)) for size in self.sizes]
        return [case for kind in (*KINDS, "size") for case in [each for each in found if each[0] == kind][::-every]]


def begin() -> None:
    """Set the working directory back to what it is before a line."""
    for name in ("out", "cache", "tmp"):
        shutil.rmtree(name, ignore_errors=True)
    shutil.copytree("cache-before", "cache")
    Path("tmp").mkdir()


def run(words: list[str], stopper: Stopper, kind: str = "kill", at: int = 0) -> tuple[int, str]:
    """Run a line in a child process that is stopped at a point, or may write files of one size alone."""
    from pfpcli.cli.main import run as command

    def work() -> int:
        if kind == "size":
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (at, at))
        else:
            stopper.kind, stopper.at = kind, at
        stopper.here = os.getcwd()
        code = command(words)
        stopper.here = ""
        if not at:
            Path("points.json").write_text(json.dumps(stopper.points), encoding="utf-8")
        return code

    return forked(work, Path("printed"))


def whole(words: list[str], stopper: Stopper) -> Whole:
    """Run a line that is not stopped."""
    begin()
    code, text = run(words, stopper)
    assert code == 0, text
    files = [path for place in ("out", "cache") for path in Path(place).rglob("*") if path.is_file()]
    prints = not Path("out").exists()
    files += [Path("printed")] if prints else []
    same = {name: path.read_bytes() for name, path in entries() if path.name.startswith(_SAME) and path.is_file()}
    points = json.loads(Path("points.json").read_text(encoding="utf-8"))
    names = {name: _names(path) for name, path in entries() if path.is_dir()}
    return Whole(words, prints, points, names, same, sorted({path.stat().st_size for path in files}))


def entries() -> Iterator[tuple[str, Path]]:
    """Yield all files and folders in out/ and the name that each has after a first run: that of "run-2" is "run"."""
    for path in [Path("out"), *sorted(Path("out").rglob("*"))] if Path("out").exists() else []:
        name = path.relative_to("out").as_posix()
        yield name.replace("-2", "", 1), path


def _names(folder: Path) -> set[str]:
    return {path.name.replace("-2", "", 1) for path in folder.iterdir()}


def halves(expected: Whole) -> list[str]:
    """What in out/ is not whole, or is another than after a run that was not stopped; drafts do not count."""
    wrong = []
    for name, path in entries():
        if ".partial" in name:
            continue
        if path.is_dir():
            names = {each for each in _names(path) if not each.endswith(".partial")}
            known = expected.names.get(name, set())
            is_part = name == "." or ".unfinished" in names
            if names - known - {".unfinished"} or (names != known and not is_part):
                wrong.append(f"{path}: {sorted(names ^ known)}")
        elif path.name != ".unfinished" and not _is_whole(path):
            wrong.append(f"{path} is not whole")
        elif path.read_bytes() != expected.same.get(name, path.read_bytes()):
            wrong.append(f"{path} is another")
    return wrong


def _is_whole(file: Path) -> bool:
    if file.suffix in (".pt", ".pt2", ".pyz"):
        return zipfile.is_zipfile(file)
    content = file.read_bytes()
    if file.suffix == ".json":
        with contextlib.suppress(ValueError):
            return bool(json.loads(content))
        return False
    return bool(content) and content.rstrip().endswith({".html": b"</html>", ".svg": b"</svg>"}.get(file.suffix, b""))


def wrong(expected: Whole, stopper: Stopper, kind: str, at: int) -> str:
    """Stop a line at a point, or at a size of files; returns what is wrong afterwards, or ""."""
    begin()
    code, text = run(expected.words, stopper, kind, at)
    found = halves(expected)
    if found:
        return f"leaves {found}"
    if kind == "kill":
        return _after_a_kill(expected, stopper) if code == -signal.SIGKILL else f"was not killed, but ended with {code}"
    left = [
        name for name, path in entries() if path.name.startswith(".") and path.name != ".unfinished" and name != "."
    ]
    left += [f"tmp/{path.name}" for path in Path("tmp").iterdir()] if kind == "interrupt" else []
    if left:
        return f"leaves {left}"
    if code == 0:
        is_done = expected.prints or {name for name, _ in entries()} >= {*expected.names}
        return "" if is_done and kind != "interrupt" else f"done, but there is {[name for name, _ in entries()]}"
    if kind == "cache":
        return f"fails, because the cache is full: {text[-200:]!r}"
    begins, wanted = ("interrupted; no unfinished run was written", 130) if kind == "interrupt" else ("error: ", 2)
    lines = [line for line in text.splitlines() if line.startswith(begins)]
    is_said = code == wanted and len(lines) == 1 and "Traceback" not in text and "bug in pfp" not in text
    is_partly = expected.words[0] == "sweep" or kind == "interrupt"  # an interrupt may come after everything is written
    if Path("out").exists() and not is_partly:
        return f"an error, but there is {[name for name, _ in entries()]}"
    return "" if is_said else f"ends with {code} and says {text[-300:]!r}"


def _after_a_kill(expected: Whole, stopper: Stopper) -> str:
    """Go on with a killed run; returns what is wrong afterwards, or ""."""
    words = expected.words
    was_written = Path("out/run").exists() and not Path("out/run/.unfinished").exists()
    code, text = 2, _NOTHING[0]
    if words[0] in GO_ON:
        code, text = run([words[0], "--resume", "out/run"], stopper, at=-1)
        if code and not any(each in text for each in _NOTHING):
            return f"--resume ends with {code} and says {text[-300:]!r}"
    if code and not (was_written and words[0] in GO_ON):
        code, text = run(FIRST if "--resume" in words else words, stopper, at=-1)
        if code:
            return f"the next run ends with {code} and says {text[-300:]!r}"
    left = [name for name, path in entries() if path.name.startswith(".") and name != "."]
    left += [str(path) for path in Path("cache").glob("unfinished/*/options.json") if not was_written]
    is_done = expected.prints or {name for name, _ in entries()} >= {*expected.names}
    found = halves(expected)
    return f"the next run leaves {left or found or 'nothing'}" if left or found or not is_done else ""


def prepare() -> None:
    """Write the models, images and runs that the lines are about into the working directory."""
    import torch

    import commands
    import onnx_files
    from pfpcli.cli.main import run as command
    from zoo import conv, head

    torch.save(commands.plain(), "model.pt")
    commands.plain_file(Path()).rename("net.onnx")
    small = torch.nn.Sequential(conv(3, 4), head(4)).eval()
    onnx_files.write(small, torch.randn(2, 3, 8, 8), Path("small.onnx"))
    commands.draw(Path("imgs"), 8, 16)
    for number in range(5):
        commands.draw(Path("classes", str(number)), 4, 8, seed=number)
    line = ["compress", *_NET, "--keep", "0.6", *_EVEN, "--out", "made"]
    code, text = forked(lambda: command(line), Path("printed"))
    assert code == 0, text
    Path("cache-before").mkdir()
    for library in Path("cache").glob("shares-*"):  # to compile it takes a second
        shutil.copy(library, "cache-before")


def ready(words: list[str], stopper: Stopper) -> Whole:
    """Set up what is there before a line, and run the line without a stop."""
    if "--resume" in words:
        first = whole(FIRST, stopper)
        begin()
        code, text = run(FIRST, stopper, "kill", first.points.index(AT) + 1)
        assert code == -signal.SIGKILL, text
        shutil.copytree("cache", "cache-before", dirs_exist_ok=True)
    return whole(words, stopper)


def results(every: int = 1, only: list[str] | None = None) -> Iterator[tuple[str, str, str]]:
    """Yield (line, kind, what is wrong or "") of each `every`-th stop of a line, of all lines or some."""
    sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
    import torch

    from forked import PRUNING

    exec(PRUNING, {})  # the runs are forked
    for job in ("sweep", "sparsify", "finetune", "compare_criteria", "plan", "latency", "score", "bench", "certify"):
        importlib.import_module(f"pfpcli.jobs.{job}")
    torch.set_num_threads(1)
    chosen = [line for line in LINES if not only or line in only]
    with tempfile.TemporaryDirectory() as folder:
        forked(lambda: _prepared(folder))
        with get_context("fork").Pool(min(len(chosen), os.cpu_count() or 1)) as pool:
            for line, found in pool.imap_unordered(stops_of, [(line, folder, every) for line in chosen], 1):
                yield from ((line, kind, what) for kind, what in found)


def stops_of(given: tuple[str, str, int]) -> tuple[str, list[tuple[str, str]]]:
    """Stop a line in a copy of a folder that is prepared.

    Args:
        given: name of the line, the folder, and N: only each N-th stop.

    Returns:
        The name of the line, and (kind, what is wrong or "") of each stop.
    """
    line, prepared, every = given
    stopper, found = _stopper(), []
    with tempfile.TemporaryDirectory() as place:
        here = shutil.copytree(prepared, Path(place, "here"))
        with _inside(here):
            expected = ready(LINES[line], stopper)
            for kind, at in expected.cases(every):
                point = f" ({expected.points[at - 1]})" if kind != "size" else ""
                what = wrong(expected, stopper, kind, at)
                found.append((kind, what and f"{at}{point}: {what}"))
    return line, found


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work in a folder that has the cache and the temporary files as well."""
    before = os.getcwd()
    os.chdir(folder)
    os.environ["PFP_CACHE"], tempfile.tempdir = str(folder / "cache"), str(folder / "tmp")
    Path("tmp").mkdir(exist_ok=True)
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.chdir(before)


def _prepared(folder: str) -> int:
    with _inside(Path(folder)):
        prepare()
    return 0


@cache
def _stopper() -> Stopper:
    return Stopper()


def main() -> int:
    """Stop runs, and print what came of it; returns 1 if something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="only each N-th stop of a kind, for each line")
    parser.add_argument("--only", action="append", metavar="LINE", help="only this line, repeatable")
    chosen = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    failed = 0
    for line, kind, found in results(chosen.every, chosen.only):
        counts.setdefault(line, Counter())[kind] += 1
        if found:
            failed += 1
            print(f"pfp {line}, {kind} at {found}", flush=True)
    for line, count in counts.items():
        parts = ", ".join(f"{count[kind]} by {kind}" for kind in (*KINDS, "size"))
        print(f"{'pfp ' + line:<28} {count.total():4} stops: {parts}")
    print(f"{sum(count.total() for count in counts.values())} stops, {failed} wrong")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
