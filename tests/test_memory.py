"""Memory that is freed, and kept for what comes next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pfpcli import memory

pytestmark = pytest.mark.skipif(memory._function("mallopt") is None, reason="the C library is not glibc")

#: Takes and frees 72 MB twice, and prints the pages that the second time takes and the megabytes that are given back.
TWICE = """
import resource
from pfpcli import memory

def take():
    for block in [bytearray(24 << 20) for _ in range(3)]:
        block[::4096] = b"1" * (len(block) // 4096)

memory.keep_freed()
take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
held = memory.held()
memory.give_back()
print((held - memory.held()) >> 20)
"""


#: Frees every second of many blocks, and prints the megabytes that are given back: there was little, and much, to free.
BETWEEN = """
from pfpcli import memory

memory.keep_freed()
memory.give_back()
for size in (64, 1024):
    blocks = [bytearray(b"1" * 100_000) for _ in range(10 * size)]
    del blocks[::2]
    held = memory.held()
    memory.give_back_if_grown()
    print((held - memory.held()) >> 20)
    del blocks
    memory.give_back()
"""


def run(script: str) -> list[int]:
    """The numbers that a script prints."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[1], capture_output=True, check=True, encoding="utf-8"
    )
    return [*map(int, done.stdout.split())]


def test_what_is_freed_between_blocks_that_are_in_use_is_given_back_once_it_is_much() -> None:
    little, much = run(BETWEEN)
    assert little < 1
    assert much > 400


def test_what_is_freed_is_taken_again_and_given_back_at_the_end() -> None:
    taken, returned = run(TWICE)
    assert taken < 1000  # of 18,432 pages
    assert returned > 60
