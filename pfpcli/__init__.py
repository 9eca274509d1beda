"""Prune the channels of a CNN checkpoint by the sensitivity of Provable Filter Pruning and export a smaller network.

    import pfpcli

    run = pfpcli.compress("model.pt", "imgs", keep=0.4)
    print(run.after.params / run.before.params)

Importing this package is cheap: torch comes with the first call.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pfpcli._version import __version__
from pfpcli.errors import PfpError
from pfpcli.records.record import Run, SparseRun, TunedRun
from pfpcli.settings import Finetune, Settings, Sparsity

__all__ = [
    "Finetune",
    "PfpError",
    "Run",
    "Settings",
    "SparseRun",
    "Sparsity",
    "TunedRun",
    "__version__",
    "compress",
    "finetune",
    "sparsify",
]

# onnxruntime (1.31, for one) reports to its makers and leaves files behind, unless told not to before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def compress(model: str | Path, calib: str | Path, *, keep: float = Settings.keep, **settings: Any) -> Run:
    """Do what `pfp compress` does, without a word on the terminal; the run folder is written as well.

    Args:
        model: path of the checkpoint.
        calib: folder of calibration images (or arrays).
        keep: fraction of the parameters to keep.
        settings: the other fields of `Settings`; paths may be strings, sequences may be lists.

    Returns:
        The record of the run.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    from pfpcli.jobs.pipeline import compress
    from pfpcli.progress import Console

    run, _ = compress(Settings(model=Path(model), calib=Path(calib), keep=keep, **_settled(settings)), Console())
    return run


def sparsify(model: str | Path, calib: str | Path, *, keep: float = Sparsity.keep, **settings: Any) -> SparseRun:
    """Do what `pfp sparsify` does, without a word on the terminal; the run folder is written as well.

    Args:
        model: path of the checkpoint.
        calib: folder of calibration images (or arrays).
        keep: fraction of the parameters that stays nonzero.
        settings: the other fields of `Sparsity`; paths may be strings, sequences may be lists.

    Returns:
        The record of the run.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    from pfpcli.jobs.pipeline import sparsify
    from pfpcli.progress import Console

    run, _ = sparsify(Sparsity(model=Path(model), calib=Path(calib), keep=keep, **_settled(settings)), Console())
    return run


def finetune(run: str | Path, data: str | Path, **settings: Any) -> TunedRun:
    """Do what `pfp finetune` does, without a word on the terminal; the run folder is written as well.

    Args:
        run: folder of the run whose network is trained.
        data: folder with one folder of images for each class.
        settings: the other fields of `Finetune`; paths may be strings, sequences may be lists.

    Returns:
        The record of the new run.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    from pfpcli.jobs.pipeline import finetune
    from pfpcli.progress import Console
    from pfpcli.records.reused_settings import network_of, remembered

    given = {**network_of(Path(run)), "calib": Path(data), **_settled(settings)}
    tuned, _ = finetune(Finetune(**{**given, **remembered(given)}), Console())
    return tuned


def _settled(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as the dataclasses have them."""
    for name in ("eval", "out", "teacher"):
        if settings.get(name) is not None:
            settings[name] = Path(settings[name])
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
