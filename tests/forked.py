"""Commands in processes of their own that import nothing: forked from one that has imported all they need."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

#: Reads a line for every command: its arguments, its folder, its environment, the code that runs it, and the files for
#: its output; answers with its exit code.
_SERVER = """
import atexit, gc, json, os, sys, tempfile
from pfpcli.cli.main import main
{prepare}
gc.freeze()  # a fork then shares its memory
for line in sys.stdin:
    args, cwd, env, program, *streams = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.clear()
        os.environ.update(env)
        sys.path[:0] = [path for path in env["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
        tempfile.tempdir = None  # it is that of the environment
        os.chdir(cwd)
        for number, name in enumerate([os.devnull, *streams]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv[1:] = args
        code = 0
        try:
            exec(program)
        except SystemExit as end:
            code = int(end.code or 0)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without taking all of torch apart
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
#: How short latencies are measured in tests: no test judges a time.
SHORT = {"PAUSE": 0.0, "WARM_UP": 1, "BLOCK": 2, "BLOCKS": 3, "MOST_BLOCKS": 3, "LEAST": 0.0}
#: What a command that prunes imports before it does anything; the first export imports half of torch, the first sizes
#: that stay free half of sympy, the first program that is saved torch's compiler, and the first flag pydantic.
PRUNING = f"""
import io
import jinja2
import torch
import pfpcli.jobs.compress
import pfpcli.cli.terminal
import pfpcli.report.html.page
from pfpcli.cli.main import run
from pfpcli.exporting import export
from pfpcli.exporting.program import program_of
from pfpcli.graph.quiet import quiet
from pfpcli.graph.trace import trace
from pfpcli.latency import files
vars(files).update({SHORT})
layers = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1)
network = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
graph = trace(network, (torch.zeros(2, 3, 8, 8),))
with quiet():
    program = program_of(graph)
    torch.export.save(program, io.BytesIO())
    export._export_converted(program, graph, export.names(graph))
    run(["compress", "no network", "--calib", "no images"])
"""


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


class Server:
    """A process that forks for every command; servers that prepare the same share it, since it takes seconds to start.

    A command meets what it would meet in a process that a shell starts: its folder, its environment, standard streams
    that are files, signals, and the end of the process.

    Args:
        env: the environment of every command, with a PYTHONPATH.
        prepare: code that runs once, before the first command of all servers with this code.
        run: code that runs a command.
    """

    def __init__(self, env: dict[str, str], prepare: str = "", run: str = "main()") -> None:
        self._env, self._prepare, self._run = env, prepare, run

    def run(self, *args: str, cwd: Path, **env: str) -> Done:
        """Run a command in a folder, with variables of its own."""
        process = _process(self._prepare, self._env)
        assert process.stdin is not None
        assert process.stdout is not None
        with TemporaryDirectory() as folder:
            streams = [Path(folder) / name for name in ("out", "err")]
            process.stdin.write(json.dumps([args, str(cwd), self._env | env, self._run, *map(str, streams)]) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            return Done(code, *(stream.read_text(encoding="utf-8") for stream in streams))


def begun(work: Callable[[], int]) -> int:
    """Do work in a process that is forked from this one; returns its number. Its exit code is what the work returns."""
    child = os.fork()
    if not child:
        code = 99
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = work()
            sys.stderr.flush()
        os._exit(code)
    return child


def ended(child: int) -> int:
    """Wait for a process that was begun; returns its exit code, or the negative number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


#: Code that is prepared -> its process, for as long as the tests run.
_PROCESSES: dict[str, subprocess.Popen[str]] = {}


def _process(prepare: str, env: dict[str, str]) -> subprocess.Popen[str]:
    """The process that has prepared something, which starts in an environment."""
    if prepare not in _PROCESSES:
        code = _SERVER.format(prepare=prepare)
        made = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        atexit.register(made.__exit__, None, None, None)
        _PROCESSES[prepare] = made
    return _PROCESSES[prepare]


#: Whether this system has the call.
CAN_FORK = hasattr(os, "fork")
