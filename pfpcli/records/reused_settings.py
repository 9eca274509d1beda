"""Settings that a later command takes from the run it works on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from pfpcli.errors import InputError
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read

#: Setting that a later command takes from the run unless a flag gives it -> its type.
REUSED: dict[str, Any] = {
    "arch": str | None,
    "arch_kwargs": dict[str, Any] | None,
    "input_size": tuple[int, ...] | None,
    "preprocess": str | None,
    "mean": tuple[float, ...] | None,
    "std": tuple[float, ...] | None,
    "resize": str | int | None,
    "convert": bool,
    "output": tuple[str, ...],
    "task": str | None,
}

#: Beginnings of the architectures that a file may name: importing any other module would run its code.
BUILDERS = ("torchvision:", "timm:")


def reused_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the run that no flag gives, and the origins of all settings.

    An architecture is taken over only if torchvision or timm builds it: a run folder may come from somebody else, and
    importing the module of another factory runs its code.

    Args:
        given: name of a setting -> value that a flag gave it; `run` is the run folder.

    Raises:
        InputError: a setting has another type; or the preprocessing of the run is a file, and no flag names it.
    """
    settings = read(given["run"]).settings
    values = {
        name: _typed(given["run"], name, settings[name])
        for name in REUSED
        if name in settings and given.get(name) in (None, False, ())
    }
    if "arch" in values and not str(values["arch"]).startswith(BUILDERS):
        del values["arch"]
        values.pop("arch_kwargs", None)
    if str(values.get("preprocess") or "").endswith(".toml"):
        raise InputError(
            f"{given['run'].name}: its images went through {values['preprocess']}, which is not kept with a run",
            f"name it: `--preprocess {values['preprocess']}`",
        )
    origins = {name: given["run"].name for name, value in values.items() if value is not None}
    return {**values, "origins": {**given.get("origins", {}), **origins}}


def _typed(run: Path, name: str, value: Any) -> Any:
    """Return a setting of a record in its type.

    Raises:
        InputError: it has another one.
    """
    try:
        return msgspec.convert(value, REUSED[name])
    except msgspec.ValidationError as error:
        raise InputError(
            f"{run.name}: {FILES['run']}: settings.{name}: {str(error).partition(' - at')[0]}",
            "name a run folder whose run.json is as pfp wrote it",
        ) from error


def network_of(run: Path) -> dict[str, Any]:
    """Return the settings of `pfp finetune` that name the network of a run.

    Args:
        run: the run folder, or a file in it.

    Raises:
        InputError: this is no run.
    """
    folder = run.parent if run.is_file() else run
    found = read(folder)
    return {
        "run": folder if folder.name else folder.resolve(),
        # an ONNX file is trained as the graph it is
        "model": folder / FILES["onnx" if found.model["kind"] == "onnx" else "pt2"],
        "input_size": tuple(found.model["input_size"]),
    }
