"""Commands in processes of their own that import nothing: forked from one that has imported all they need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType

#: Reads a line for every command: its arguments, its folder, and the files for its output; answers with its exit code.
_SERVER = """
import atexit, gc, json, os, sys
from pfpcli.cli.main import main
{prepare}
gc.freeze()  # a fork then shares its memory
for line in sys.stdin:
    args, cwd, *streams = json.loads(line)
    child = os.fork()
    if not child:
        os.chdir(cwd)
        for number, name in enumerate([os.devnull, *streams]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), number)
        sys.argv[1:] = args
        code = 0
        try:
            {run}
        except SystemExit as end:
            code = int(end.code or 0)
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without taking all of torch apart
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
#: How short latencies are measured in tests: no test judges a time.
SHORT = {"PAUSE": 0.0, "WARM_UP": 1, "BLOCK": 2, "BLOCKS": 3, "LEAST": 0.0}
#: What a command that prunes imports before it does anything; the first ONNX file imports half of torch.
PRUNING = f"""
import torch
import pfpcli.jobs.compress
from pfpcli.exporting import export
from pfpcli.graph.quiet import quiet
from pfpcli.latency import files
vars(files).update({SHORT})
with quiet():
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1),))
    export._export_dynamo(program, export.Names(("x",), ("y",)), optimize=True)
"""


@dataclass(frozen=True)
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str


class Server:
    """A process that forks for every command.

    A command meets what it would meet in a process that a shell starts: its folder, standard streams that are files,
    signals, and the end of the process.

    Args:
        env: the environment of every command.
        prepare: code that runs once, before the first command.
        run: code that runs a command.
    """

    def __init__(self, env: dict[str, str], prepare: str = "", run: str = "main()") -> None:
        code = _SERVER.format(prepare=prepare, run=run.strip().replace("\n", "\n" + 12 * " "))
        self._process = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.__exit__(kind, error, trace)

    def run(self, *args: str, cwd: Path) -> Done:
        """Run a command in a folder."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with TemporaryDirectory() as folder:
            streams = [Path(folder) / name for name in ("out", "err")]
            self._process.stdin.write(json.dumps([args, str(cwd), *map(str, streams)]) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            return Done(code, *(stream.read_text(encoding="utf-8") for stream in streams))


#: Whether this system has the call.
CAN_FORK = hasattr(os, "fork")
