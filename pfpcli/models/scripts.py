"""Which TorchScript archives pfp loads from a file that is not trusted.

A script is a program: loading the archive runs its `__setstate__`, and tracing runs its forward. Its language has no
imports, but some of its ops write or read files, and its loops need not end. The source in the archive, which has the
syntax of Python, is read before torch is shown the file.
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from pfpcli.errors import InputError
from pfpcli.models.pickles import TRUST_HINT, broken

#: Functions that write or read a file.
_FILES = ("save", "load", "from_file")
#: Libraries whose ops only compute. Ops of other libraries talk to processes and devices, or are unknown.
_COMPUTING = ("aten", "prim", "prims", "torchvision", "quantized", "quantization", "sparse", "mkldnn", "onednn")
#: The most rounds of all loops of a script, multiplied.
MOST_ROUNDS = 1_000_000


def check_script(file: BinaryIO, name: str) -> None:
    """Check that a TorchScript archive writes and reads no files, and that its loops end.

    Args:
        file: the zip archive, open at its beginning; it is rewound.
        name: its name, for messages.

    Raises:
        InputError: it does, or may; or its source cannot be read.
    """
    rounds = 1
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
            if len({member.lower() for member in members}) < len(members):
                raise InputError(f"{name}: holds two members of the same name", "save it again with torch.jit.save")
            sources = [archive.read(member).decode() for member in members if member.endswith(".py")]
        for source in sources:
            tree = ast.parse(source)
            if danger := next(_dangers(tree), None):
                raise InputError(f"{name}: the script {danger}", TRUST_HINT)
            for loop in ast.walk(tree):
                if isinstance(loop, ast.For):
                    rounds *= _rounds(loop)
    except InputError:
        raise
    except Exception as error:
        raise broken(name, error) from error
    if rounds > MOST_ROUNDS:
        raise InputError(f"{name}: the script runs loops of {rounds:,} rounds", TRUST_HINT)
    file.seek(0)


def _dangers(tree: ast.AST) -> Iterator[str]:
    for part in ast.walk(tree):
        if isinstance(part, ast.While):
            yield "has a `while` loop, which may never end"
        elif isinstance(part, ast.For) and _rounds(part) == 0:
            yield "has a loop over a computed number of rounds, which may never end"
        elif isinstance(part, ast.Attribute):
            dotted = ast.unparse(part)
            if part.attr in _FILES:
                yield f"calls {dotted}, which writes or reads files"
            parts = dotted.split(".")
            if parts[0] == "ops" and len(parts) > 1 and parts[1] not in _COMPUTING:
                yield f"calls {dotted} of a library that may do more than compute"


def _rounds(loop: ast.For) -> int:
    """Return how often a loop runs: a number, 1 for the elements of a list, 0 if it is computed."""
    over = loop.iter
    if not (isinstance(over, ast.Call) and isinstance(over.func, ast.Name) and over.func.id == "range"):
        return 1
    count = over.args[0] if len(over.args) == 1 else None
    if isinstance(count, ast.Constant) and isinstance(count.value, int):
        return max(1, count.value)
    is_length = isinstance(count, ast.Call) and ast.unparse(count.func) == "torch.len"
    return 1 if is_length else 0
