"""Started runs: what an interrupted run has kept is changed, and `pfp compress --resume` goes on with it.

Whatever is kept, no code of it runs, and the command ends with a result or one error. If only steps, scores or curves
were changed, the result is that of the run that was left alone.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hostile_files import commanded
from mutations import NAMES, NUMBERS, changed_json, cut_off, flipped, spliced

import commands
from forked import SHORT
from pfpcli.cli.main import run
from pfpcli.errors import InputError
from pfpcli.latency import files as latencies
from pfpcli.progress import Console
from pfpcli.records.started import OPTIONS

LINE = ["compress", "net.onnx", "--calib", "imgs", "--keep", "0.6", "--criterion", "l2", "--threads", "1", "-q",
        "--out", "run"]  # fmt: skip
RESUME = ["compress", "--resume", "run", "-q"]
#: Options that would let files run code, if a kept line could choose them.
CODE = {"arch": "evil:net", "arch_kwargs": "{}", "metric": "evil.py:score", "trust": True, "plan": "evil.py"}
_EVIL = "from pathlib import Path\nPath('hacked').touch()\ndef net(): ...\ndef score(file, folder): return 1.0\n"


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("hacked",)


@dataclass(frozen=True)
class Sample:
    """An interrupted run.

    Attributes:
        place: the folder that it was started in; its cache is in there.
        model: the network that it comes to.
    """

    place: Path
    model: bytes


@cache
def sample() -> Sample:
    """Interrupt a run, keep what it has left, and let it go on."""
    place = Path(mkdtemp(dir=Path.cwd()), "inner", "started")
    place.mkdir(parents=True)
    commands.plain_file(place).rename(place / "net.onnx")
    commands.draw(place / "imgs", 8, 16)
    (place / "evil.py").write_text(_EVIL, encoding="utf-8")
    vars(latencies).update(SHORT)
    step = Console.step

    def interrupted(console: Console, name: str) -> Any:
        if name == "export":
            raise KeyboardInterrupt
        return step(console, name)

    with _inside(place):
        Console.step = interrupted  # type: ignore[method-assign]
        try:
            assert run(LINE) == 130
        finally:
            Console.step = step  # type: ignore[method-assign]
        shutil.copytree("cache", "kept")
        assert run(RESUME) == 0
        return Sample(place, Path("run/model.onnx").read_bytes())


@contextmanager
def _inside(place: Path) -> Iterator[None]:
    before, kept = Path.cwd(), os.environ.get("PFP_CACHE")
    os.chdir(place)
    os.environ["PFP_CACHE"] = str(place / "cache")
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.pop("PFP_CACHE") if kept is None else os.environ.update(PFP_CACHE=kept)


def attacked(seed: int) -> str:
    """Change what the run has left, and go on with it; returns "works".

    Raises:
        PfpError: it is refused.
        AssertionError: the result is another one.
    """
    made, draw = sample(), random.Random(f"started {seed}")
    with _inside(made.place):
        for left in ("cache", "run", "run-2"):
            shutil.rmtree(left, ignore_errors=True)
        shutil.copytree("kept", "cache")
        files = sorted(
            path for path in Path("cache").rglob("*") if path.is_file() and path.suffix not in (".so", ".sha256")
        )
        file = draw.choice([path for path in files if path.name == OPTIONS] * 8 + files)
        (_changed_options if file.name == OPTIONS else _changed_step)(file, draw.choice(files), draw)
        shows = ["--show-settings"] if file.name == OPTIONS and draw.random() < 0.5 else []
        try:
            commanded([*RESUME, *shows], Path())
        except InputError:
            if file.name != OPTIONS:
                raise AssertionError(f"refused, because {file.name} was changed") from None
            raise
        finally:
            if Path("hacked").exists():
                raise SystemExit("code of a kept file ran")
        if file.name != OPTIONS:
            assert Path("run/model.onnx").read_bytes() == made.model, (
                f"another network, because {file.name} was changed"
            )
    return "works"


def _changed_options(file: Path, other: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    found = json.loads(content)
    options = found["options"]
    way = draw.randrange(8)
    if way == 0:
        _replaced(file, other, draw)
        return
    if way == 1:
        content = draw.choice((flipped, cut_off, spliced))(content, draw)
    elif way == 2:
        content = changed_json(content, draw)
    elif way == 3:
        content = content.replace(b"{", b'{"x":' + b"[" * 9000 + b"]" * 9000 + b",", 1)
    elif way == 4:
        found["code"] = draw.choice((["--trust"], ["--arch"], [*NAMES], ["--metric", "--keep"]))
        content = json.dumps(found).encode()
    else:
        values: tuple[Any, ...] = (None, True, False, "", [], ["a", "b"], "nan", 1e308, *NAMES, *NUMBERS)
        for name in draw.sample(
            sorted({*options, *CODE, "resume", "show_settings", "help"}), draw.choice((1, 1, 2, 3))
        ):
            options[name] = draw.choice(values) if name not in CODE or draw.random() < 0.3 else CODE[name]
        content = json.dumps(found).encode()
    file.write_bytes(content)


def _changed_step(file: Path, other: Path, draw: random.Random) -> None:
    content = file.read_bytes()
    way = draw.randrange(4)
    if way == 0:
        file.write_bytes(draw.choice((flipped, cut_off, spliced))(content, draw))
    elif way == 1:
        file.write_bytes(
            draw.choice((b"", pickle.dumps(_Evil()), other.read_bytes(), content[:32] + other.read_bytes()))
        )
    elif way == 2:
        name = draw.choice([each for each in NAMES if each and len(each) < 200 and not {"/", "\0"} & {*each}])
        (file.parent / name).mkdir(exist_ok=True) if draw.random() < 0.5 else file.rename(file.parent / f"{name}x")
    else:
        _replaced(file, other, draw)


def _replaced(file: Path, other: Path, draw: random.Random) -> None:
    """Something else than a file is in the place of a file."""
    file.unlink()
    way = draw.randrange(4)
    if way == 0:
        os.mkfifo(file)
    elif way == 1:
        file.symlink_to(draw.choice(("/dev/zero", "/etc/passwd", file.name, os.path.abspath(other))))
    elif way == 2:
        file.mkdir()
    else:
        file.touch()
        file.chmod(0o666)
