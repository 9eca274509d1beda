"""Run the examples of the documentation, and write what they print into the pages.

    python docs/run_examples.py README.md docs/tutorial.md

A ```console block holds commands, each after `$ `, and what they print, stdout and stderr in one. The commands run from
the top of the first page to the end of the last, in one empty folder in which only `samples` exists; a command that
stands on several pages runs once. `…` stands for lines that were removed by hand; such an output is left as it is.

`make examples` runs it over the pages below, and tests/docs/test_examples.py fails when an output is stale.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: The pages whose commands run on the samples.
PAGES = (ROOT / "docs/tutorial.md", ROOT / "README.md")

_BLOCK = re.compile(r"(?ms)^```console\n(.*?)^```$")
_CUT = "…"


@dataclass(frozen=True)
class Example:
    """One command of a page.

    Attributes:
        command: as it is typed.
        output: what the page says that it prints.
    """

    command: str
    output: str

    @property
    def is_shortened(self) -> bool:
        """Whether lines were cut out of the output by hand."""
        return _CUT in (line.strip() for line in self.output.splitlines())


@dataclass(frozen=True)
class Printed:
    """What a command printed, stdout and stderr in one, and how it ended."""

    output: str
    code: int


def examples(page: str) -> Iterator[Example]:
    """The examples of a page, from its top to its end."""
    for block in _BLOCK.findall(page):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, output = part.partition("\n")
            yield Example(command, output.strip("\n"))


def run(commands: list[str], folder: Path) -> dict[str, Printed]:
    """Run commands in a folder, each once, in the order of their first place.

    Args:
        commands: as they are typed; `pfp` is this checkout's.
        folder: empty, but for `samples`.
    """
    return {command: _run(command, folder) for command in dict.fromkeys(commands)}


def _run(command: str, folder: Path) -> Printed:
    words = shlex.split(command)
    if words[0] == "pfp":
        words[:1] = [sys.executable, "-m", "pfpcli"]
    changed = {
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
        "PFP_CACHE": str(folder / ".cache"),
        "PFP_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "COLUMNS": "80",
    }
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **changed},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    lines = (line.rstrip() for line in done.stdout.splitlines())
    return Printed("\n".join(lines).strip("\n"), done.returncode)


def refreshed(page: str, printed: dict[str, Printed]) -> str:
    """The page with the outputs that its commands have printed."""

    def block(match: re.Match[str]) -> str:
        shown = []
        for example in examples(match[0]):
            output = example.output if example.is_shortened else printed[example.command].output
            shown.append(f"$ {example.command}\n" + (f"{output}\n" if output else ""))
        return "```console\n" + "\n".join(shown) + "```"

    return _BLOCK.sub(block, page)


def main(pages: list[Path]) -> None:
    """Run the examples of pages and write them again."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "samples").symlink_to(ROOT / "samples")
        commands = [each.command for page in pages for each in examples(page.read_text(encoding="utf-8"))]
        printed = run(commands, folder)
    for command, found in printed.items():
        if found.code:
            print(f"exit code {found.code}: {command}\n{found.output}\n", file=sys.stderr)
    for page in pages:
        page.write_text(refreshed(page.read_text(encoding="utf-8"), printed), encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or list(PAGES))
