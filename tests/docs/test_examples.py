"""The examples of the tutorial and of the README run, and print what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest

from pages import ROOT, script, text

RUNNER: Any = script("run_examples")
PAGES = [str(page.relative_to(ROOT)) for page in RUNNER.PAGES]

#: A number, with its sign and its exponent.
_NUMBER = re.compile(r"[-−+]?\d+(?:[.,]\d+)*(?:e-?\d+)?")
#: A remark on the time of one inference, which is chance for a network this small.
_SPEED = re.compile(r"(?m)slower;|^ *warning: not faster.*$")
_TIME = re.compile(r"(?m)(?:# s|#:# min)$")
#: What training comes to, which differs between machines: rounding decides whether a small gain is undone.
_TRAINED = re.compile(r"(?m)^.*(?:recovered by|undone|fine-tun|PASS.*: (?:accuracy|nothing)).*$")


@pytest.fixture(scope="module")
def printed() -> dict[str, Any]:
    found: dict[str, Any] = RUNNER.run([text(page) for page in PAGES])
    return found


def lines(output: str) -> list[str]:
    """The lines of an output with # for every number, without what differs between machines."""
    plain = _NUMBER.sub("#", _TRAINED.sub("", _SPEED.sub("", output)))
    return [" ".join(line.split()) for line in _TIME.sub("TIME", plain).splitlines() if line.strip()]


@pytest.mark.slow
def test_every_command_of_the_pages_ends_well(printed: dict[str, Any]) -> None:
    for command, found in printed.items():
        assert found.code == 0, f"{command}\n{found.output}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_outputs_on_a_page_are_what_the_commands_print(page: str, printed: dict[str, Any]) -> None:
    for example in RUNNER.examples(text(page)):
        assert lines(example.output) == lines(printed[example.command].output), "stale: run `make examples`"


def test_numbers_and_speed_are_no_difference_between_two_outputs() -> None:
    here = "latency  0.18 ms  0.2 ms  0.9×  slower; median\nload  a.pt   1.2 s\nwarning: not faster: 0.2\n−59.8 %"
    there = "latency  1.1 ms  0.5 ms  2.2×  median\nload  a.pt  1:02 min\n+3 %"
    assert lines(here) == lines(there)


def test_a_page_is_refreshed_block_by_block() -> None:
    page = "# A\n\n```console\n$ ls x\nold\n```\n\n```console result\n$ ls y\n```\n"
    fresh = {"ls x": RUNNER.Printed("new", 0), "ls y": RUNNER.Printed("1\n2", 0)}
    made = RUNNER.refreshed(page, fresh)
    assert made == "# A\n\n```console\n$ ls x\nnew\n```\n\n```console result\n$ ls y\n1\n2\n```\n"
    assert [example.with_steps for example in RUNNER.examples(made)] == [True, False]


def test_the_program_refuses_to_write_a_page_whose_command_fails(tmp_path: Any) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ pfp inspect nothing.pt\n```\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "docs/run_examples.py", str(page)], cwd=ROOT, check=False)
    assert done.returncode == 1
    assert page.read_text(encoding="utf-8").count("\n") == 3
