"""Run the examples of the documentation, and write what they print into the pages.

    python docs/run_examples.py README.md docs/tutorial.md

A ```console block holds commands, each after `$ `, and what they print, stdout and stderr in one. A ```console result
block holds stdout alone, without the steps. The commands run from the top of the first page to the end of the last, in
one folder in which only `samples` exists; a command that stands on several pages runs once.

`make examples` runs it over the pages below, and tests/docs/test_examples.py fails when an output is stale.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: The pages whose commands run on the samples.
PAGES = (ROOT / "docs/tutorial.md", ROOT / "README.md", ROOT / "docs/how-to/single-weights.md")

_BLOCK = re.compile(r"(?ms)^```console( result)?\n(.*?)^```$")


@dataclass(frozen=True)
class Example:
    """One command of a page.

    Attributes:
        command: as it is typed.
        output: what the page says that it prints.
        with_steps: whether that has stderr in it.
    """

    command: str
    output: str
    with_steps: bool


@dataclass(frozen=True)
class Printed:
    """What a command printed, as its block shows it, and how it ended."""

    output: str
    code: int


def examples(page: str) -> Iterator[Example]:
    """The examples of a page, from its top to its end."""
    for result, block in _BLOCK.findall(page):
        for part in re.split(r"(?m)^\$ ", block)[1:]:
            command, _, output = part.partition("\n")
            yield Example(command, output.strip("\n"), not result)


def run(pages: Sequence[str]) -> dict[str, Printed]:
    """Run the commands of pages in a folder of their own, each once, in the order of their first place."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "samples").symlink_to(ROOT / "samples")
        printed: dict[str, Printed] = {}
        for page in pages:
            for example in examples(page):
                if example.command not in printed:
                    printed[example.command] = _run(example, folder)
        return printed


def _run(example: Example, folder: Path) -> Printed:
    words = shlex.split(example.command)
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
        stderr=subprocess.STDOUT if example.with_steps else subprocess.PIPE,
        encoding="utf-8",
        check=False,
    )
    if done.returncode and done.stderr:
        print(done.stderr, file=sys.stderr)
    lines = (line.rstrip() for line in done.stdout.splitlines())
    return Printed("\n".join(lines).strip("\n"), done.returncode)


def refreshed(page: str, printed: dict[str, Printed]) -> str:
    """The page with the outputs that its commands have printed."""

    def block(match: re.Match[str]) -> str:
        shown = []
        for example in examples(match[0]):
            output = printed[example.command].output
            shown.append(f"$ {example.command}\n" + (f"{output}\n" if output else ""))
        return f"```console{match[1] or ''}\n" + "\n".join(shown) + "```"

    return _BLOCK.sub(block, page)


def main(pages: list[Path]) -> None:
    """Run the examples of pages and write their outputs into them."""
    texts = [page.read_text(encoding="utf-8") for page in pages]
    printed = run(texts)
    for command, found in printed.items():
        if found.code:
            sys.exit(f"exit code {found.code}: {command}\n{found.output}")
    for page, text in zip(pages, texts, strict=True):
        page.write_text(refreshed(text, printed), encoding="utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or list(PAGES))
