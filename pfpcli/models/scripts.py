"""Which TorchScript archives pfp loads from a file that is not trusted.

A script is a program: loading the archive runs its `__setstate__`, and tracing runs its forward. Its language has no
imports, but some of its ops write or read files, and its loops need not end. The source in the archive, which has the
syntax of Python, is read before torch is shown the file. A forward with a loop of unknown length is tried in a process
of its own first.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pfpcli.errors import InputError
from pfpcli.models.pickles import TRUST_HINT, broken, members_of

#: Functions that write or read a file.
_FILES = ("save", "load", "from_file")
#: Libraries whose ops only compute. Ops of other libraries talk to processes and devices, or are unknown.
_COMPUTING = ("aten", "prim", "prims", "torchvision", "quantized", "quantization", "sparse", "mkldnn", "onednn")
#: Functions of whole numbers that a bounded number of rounds may be computed by: none of them multiplies.
_BOUNDED = ("torch.len", "torch.sub", "torch.add", "torch.dim", "torch.floordiv")
#: The most rounds of all loops of a script with a number of rounds, multiplied.
MOST_ROUNDS = 1_000_000
#: Seconds that a script with other loops may run on one input.
PATIENCE = 60
#: Runs the forward of the script at a path (1) on an input of a shape (2).
#: Nothing is imported from the current folder.
_RUN = """
import sys
sys.path[:] = [path for path in sys.path if path]
import json, torch
torch.jit.load(sys.argv[1], "cpu").eval()(torch.zeros(json.loads(sys.argv[2])))
"""


def check_script(file: BinaryIO, name: str) -> bool:
    """Check that a TorchScript archive writes and reads no files, and that loading it ends.

    Args:
        file: the zip archive, open at its beginning; it is rewound.
        name: its name, for messages.

    Returns:
        Whether the source shows that the forward ends; if not, `check_ends` finds out.

    Raises:
        InputError: it does, or may; or its source cannot be read.
    """
    rounds, ends = 1, True
    try:
        with zipfile.ZipFile(file) as archive:
            members = members_of(archive, name)
            sources = [archive.read(member).decode() for member in members if member.endswith(".py")]
        for source in sources:
            tree = ast.parse(source)
            if danger := next(_dangers(tree), None):
                raise InputError(f"{name}: the script {danger}", TRUST_HINT)
            for loop in ast.walk(tree):
                ends = ends and not isinstance(loop, ast.While)
                count = _rounds(loop) if isinstance(loop, ast.For) else 1
                rounds, ends = rounds * max(1, count), ends and count > 0
    except InputError:
        raise
    except Exception as error:
        raise broken(name, error) from error
    file.seek(0)
    return ends and rounds <= MOST_ROUNDS


def check_ends(file: Path, shape: tuple[int, ...]) -> None:
    """Check that a script ends, by running it in a process of its own.

    Args:
        file: the TorchScript archive.
        shape: of its input.

    Raises:
        InputError: it is not done after `PATIENCE` seconds.
    """
    try:
        command = [sys.executable, "-c", _RUN, str(file.absolute()), json.dumps(shape)]
        subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{file.name}: the script has loops, and is not done with one input after {PATIENCE} s", TRUST_HINT
        ) from error


def _dangers(tree: ast.AST) -> Iterator[str]:
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef) and part.name == "__setstate__":
            if any(isinstance(each, ast.While | ast.For) for each in ast.walk(part)):
                yield "has a loop that runs when it is loaded"
        elif isinstance(part, ast.Attribute):
            dotted = ast.unparse(part)
            if part.attr in _FILES:
                yield f"calls {dotted}, which writes or reads files"
            parts = dotted.split(".")
            if parts[0] == "ops" and len(parts) > 1 and parts[1] not in _COMPUTING:
                yield f"calls {dotted} of a library that may do more than compute"


def _rounds(loop: ast.For) -> int:
    """Return how often a loop runs: a number, 1 for about as often as a list is long, 0 if that is unknown."""
    over = loop.iter
    if not (isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range"):
        return 1
    if len(over.args) == 1 and isinstance(count := over.args[0], ast.Constant) and isinstance(count.value, int):
        return max(1, count.value)
    return int(all(map(_is_bounded, over.args)))


def _is_bounded(number: ast.expr) -> bool:
    """Whether a number is about as large as the length of a list."""
    if isinstance(number, ast.Constant):
        return isinstance(number.value, int) and abs(number.value) <= 1000
    if not isinstance(number, ast.Call) or ast.unparse(number.func) not in _BOUNDED:
        return False
    return ast.unparse(number.func) == "torch.len" or all(map(_is_bounded, number.args))
