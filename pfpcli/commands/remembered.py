"""Remembered: settings of a run that commands on it go by, unless a flag says otherwise."""

from __future__ import annotations

from typing import Any

from pfpcli import record
from pfpcli.errors import InputError

_REMEMBERED = ("arch", "arch_kwargs", "input_size", "preprocess", "mean", "std", "resize", "convert")


def remembered(given: dict[str, Any]) -> dict[str, Any]:
    """What the run knows and no flag said.

    Raises:
        InputError: its images went through a preprocessing that is a file, and no flag names it.
    """
    settings = record.read(given["run"]).settings
    values = {name: settings.get(name) for name in _REMEMBERED if given.get(name) in (None, False)}
    if str(values.get("preprocess") or "").endswith(".toml"):
        raise InputError(
            f"{given['run'].name}: its images went through {values['preprocess']}, which is not kept with a run",
            f"name it: `--preprocess {values['preprocess']}`",
        )
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
