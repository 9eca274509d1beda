"""Remembered: settings of a run that what is done to it later goes by, unless something else is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pfpcli.errors import InputError
from pfpcli.records import record
from pfpcli.records.record import FILES

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


def network_of(run: Path) -> dict[str, Any]:
    """Where the network of a run lies: settings of `Finetune`; run: the folder, or a file in it.

    Raises:
        InputError: it is no run.
    """
    folder = run.parent if run.is_file() else run
    found = record.read(folder)
    return {
        "run": folder if folder.name else folder.resolve(),
        # the graph that came in is trained as the graph it is
        "model": folder / FILES["onnx" if found.model["kind"] == "onnx" else "pt2"],
        "input_size": tuple(found.model["input_size"]),
    }
