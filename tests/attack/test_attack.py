"""A slice of the attacks; `make attack` runs ten thousand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ATTACK = Path(__file__).with_name("attack.py")


def test_a_mutated_file_works_or_is_refused_with_an_error_that_pfp_means() -> None:
    done = subprocess.run(
        [sys.executable, str(ATTACK), "--cases", "100"], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = [line for line in done.stdout.splitlines() if "cases:" in line]
    assert sum(int(line.split()[1]) for line in counted) == 100
    assert any(int(line.split()[3]) for line in counted)  # some are refused
