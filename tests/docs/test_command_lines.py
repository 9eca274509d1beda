"""Every command line in the documentation is one that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from pages import PAGES, outside_blocks, text
from pfpcli.cli import commands, resume
from pfpcli.cli.app import app
from pfpcli.cli.flags import Asked
from pfpcli.records.started import Started

commands.join_all()
PROGRAM: Any = typer.main.get_command(app)
FLAGS = {
    flag
    for command in (PROGRAM, *PROGRAM.commands.values())
    for param in command.params
    for flag in (*param.opts, *param.secondary_opts)
} | {"--help", "-h"}
#: Flags of other programs that the pages name.
OTHERS = {"--nproc-per-node", "--accuracy", "--update-golden", "--dist", "--seeds"}
#: Pages that programs write, or that tell of older versions.
NOT_TYPED = {"CHANGELOG.md"}

_BLOCK = re.compile(r"(?ms)^```.*?^```$")
_LINE_OF_BLOCK = re.compile(r"(?m)^(?:\$ )?((?:pfp|torchrun) .*)$")
_INDENTED_LINE = re.compile(r"(?m)^ {4}((?:pfp|torchrun) .*)$")
_INLINE = re.compile(r"`(pfp [^`]*)`")
_WHERE_IT_ENDS = {">", "|", "&&", "2>&1"}


def typed(page: str) -> Iterator[list[str]]:
    """The command lines of a page that stand in lines of their own, as words; without what a shell does with them."""
    blocks = "\n".join(_BLOCK.findall(text(page)))
    for line in (*_LINE_OF_BLOCK.findall(blocks), *_INDENTED_LINE.findall(outside_blocks(page))):
        words = shlex.split(line, comments=True)
        if "-m" in words and "pfpcli" in words:
            words = ["pfp", *words[words.index("pfpcli") + 1 :]]
        end = next((i for i, word in enumerate(words) if word in _WHERE_IT_ENDS), len(words))
        yield words[:end]


def interrupted(words: list[str]) -> Started:
    """An interrupted run of a command, with whatever its line has to name, which was started with the same code."""
    options = {"model": "model.pt", "calib": "imgs", "keep": "0.5", "run": "run", "data": "imgs"}
    return Started(words[1], options, {}, ["--metric"] if "--metric" in words else [], "small")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NOT_TYPED])
def test_every_command_line_parses(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in typed(page):
        name, given = words[1] if len(words) > 1 else "", words[2:]
        if "[OPTIONS]" in words or "…" in words or name in ("", "--help", "COMMAND", "--install-completion"):
            continue
        assert name in PROGRAM.commands, words
        monkeypatch.setattr(resume, "find", lambda *_, words=words: interrupted(words))
        if "--help" not in given:
            PROGRAM.commands[name].make_context(name, given, obj=Asked())


@pytest.mark.parametrize("page", [page for page in PAGES if page not in NOT_TYPED])
def test_every_flag_in_a_sentence_exists(page: str) -> None:
    for command in _INLINE.findall(text(page)):
        name, flags = command.split()[1], set(re.findall(r"(?<!\S)--?[a-z][\w-]*", command))
        if name in PROGRAM.commands:
            known = {flag for param in PROGRAM.commands[name].params for flag in param.opts} | {"--help"}
            assert flags <= known, command
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text(page)))
    assert mentioned - FLAGS - OTHERS == set()
