"""The Python interface: one function for each command, without a word on the terminal.

A function takes what a Python user would write (strings as paths, lists, `resize=(224, 224)`, a module in memory) and
raises a `PfpError` where the command would print one. Nothing here imports torch before a function is called.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pfpcli.errors import InputError
from pfpcli.progress import Console
from pfpcli.records.certified import Certified
from pfpcli.records.compared_runs import RunsCompared
from pfpcli.records.compared_runs import compare as compare_runs
from pfpcli.records.comparison import Comparison as ComparisonRecord
from pfpcli.records.folders import FILES
from pfpcli.records.inspection import Inspection
from pfpcli.records.planned import PlannedNetwork
from pfpcli.records.ranking import Ranking
from pfpcli.records.reading import read
from pfpcli.records.reused_settings import network_of, reused_settings
from pfpcli.records.runs import Run, SparseRun, TunedRun
from pfpcli.records.verified import Verified
from pfpcli.settings import (
    CertifySettings,
    CompareCriteriaSettings,
    CompressSettings,
    FinetuneSettings,
    InMemoryModel,
    NetworkSettings,
    ScoreSettings,
    SparsifySettings,
    SweepSettings,
    VerifySettings,
)
from pfpcli.settings.python import from_python

if TYPE_CHECKING:
    from torch import Tensor, nn

_R = TypeVar("_R", Run, SparseRun, TunedRun)

#: What names a model: the path of a file, or a `torch.nn.Module` in memory.
Model = Any
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Result(Generic[_R]):
    """A run: its record, and the folder it lies in.

    Attributes:
        record: everything that the run did, as in run.json.
        folder: path of the run folder, as typed or relative to the working directory at the time of the call.
    """

    record: _R
    folder: Path
    _module: nn.Module | None = field(default=None, repr=False, compare=False)

    @property
    def onnx(self) -> Path:
        """Path of model.onnx; of failed-model.onnx where `record.status` is "failed"."""
        return self.folder / (self.record.artifacts["onnx"] or FILES["onnx"])

    @property
    def pt2(self) -> Path:
        """Path of model.pt2; of failed-model.pt2 where `record.status` is "failed"."""
        return self.folder / (self.record.artifacts["pt2"] or FILES["pt2"])

    def module(self) -> nn.Module:
        """The smaller network as a torch module in eval mode.

        It is a copy of the module that was passed, or of the one in the file, where its own forward computes the same
        with the smaller tensors; otherwise it is the module of model.pt2.
        """
        if self._module is not None:
            return self._module
        import torch

        return torch.export.load(self.pt2).module()


@dataclass(frozen=True)
class Sweep:
    """A sweep: its runs compared, as `pfp compare` does, and the folder of their run folders."""

    record: RunsCompared
    folder: Path


@dataclass(frozen=True)
class Plan:
    """A plan: its record, and the path of plan.json."""

    record: PlannedNetwork
    file: Path


@dataclass(frozen=True)
class Comparison:
    """A comparison of criteria: its record, and the folder with its table and chart."""

    record: ComparisonRecord
    folder: Path


def compress(
    model: Model, calib: PathLike, *, keep: float | str | None = CompressSettings.keep, **settings: Any
) -> Result[Run]:
    """Do what `pfp compress` does.

    Args:
        model: path of the checkpoint, or a `torch.nn.Module`, which is copied and not changed.
        calib: folder of calibration images (or arrays).
        keep: fraction of the parameters to keep, e.g. 0.4 or "40%"; None means 0.5, or the smallest network within
            `max_drop` where that is given.
        settings: the other fields of `CompressSettings`, and `example`: an input of the network, float[N, C, H, W],
            whose size counts where `input_size` is not given.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    return _run("compress", CompressSettings, {"model": model, "calib": calib, "keep": keep, **settings})


def plan(model: Model, calib: PathLike, *, keep: float | str | None = CompressSettings.keep, **settings: Any) -> Plan:
    """Do what `pfp plan` does; arguments as for `compress`, which takes `plan=` the file of the result."""
    found = _job("plan", CompressSettings, {"model": model, "calib": calib, "keep": keep, **settings})
    return Plan(found.record, Path(found.folder))


def sweep(model: Model, calib: PathLike, *, keep: Sequence[float | str], **settings: Any) -> Sweep:
    """Do what `pfp sweep` does; arguments as for `compress`, with several fractions to keep."""
    found = _job("sweep", SweepSettings, {"model": model, "calib": calib, "keeps": keep, **settings})
    return Sweep(found.record, Path(found.folder))


def sparsify(
    model: Model, calib: PathLike, *, keep: float | str = SparsifySettings.keep, **settings: Any
) -> Result[SparseRun]:
    """Do what `pfp sparsify` does.

    Args:
        model: as for `compress`.
        calib: folder of calibration images (or arrays).
        keep: fraction of the parameters that stays nonzero.
        settings: the other fields of `SparsifySettings`, and `example` as for `compress`.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    return _run("sparsify", SparsifySettings, {"model": model, "calib": calib, "keep": keep, **settings})


def finetune(run: PathLike | Result[Any], data: PathLike, **settings: Any) -> Result[TunedRun]:
    """Do what `pfp finetune` does.

    Args:
        run: folder of the run whose network is trained, or what `compress` returned.
        data: folder with one folder of images for each class.
        settings: the other fields of `FinetuneSettings`.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    given = {**network_of(_folder(run)), "calib": data, **settings}
    return _run("finetune", FinetuneSettings, {**given, **reused_settings(given)})


def compare_criteria(model: Model, calib: PathLike, **settings: Any) -> Comparison:
    """Do what `pfp compare-criteria` does; arguments as for `compress`, settings those of `CompareCriteriaSettings`."""
    found = _job("compare_criteria", CompareCriteriaSettings, {"model": model, "calib": calib, **settings})
    return Comparison(found.record, Path(found.folder))


def score(model: Model, calib: PathLike, **settings: Any) -> Ranking:
    """Do what `pfp score` does; arguments as for `compress`, settings those of `ScoreSettings`."""
    found: Ranking = _job("score", ScoreSettings, {"model": model, "calib": calib, **settings})
    return found


def inspect(model: Model, **settings: Any) -> Inspection:
    """Do what `pfp inspect` does; model as for `compress`, settings those of `NetworkSettings`, and `example`."""
    found: Inspection = _job("inspect", NetworkSettings, {"model": model, **settings})
    return found


def certify(run: PathLike | Result[Any], model: Model, calib: PathLike, **settings: Any) -> Certified:
    """Do what `pfp certify` does.

    Args:
        run: folder of a run of `compress`, or what `compress` returned.
        model: the checkpoint that the run was made of.
        calib: folder of other images.
        settings: the other fields of `CertifySettings`.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    given = {"run": _folder(run), "model": model, "calib": calib, **settings}
    found: Certified = _job("certify", CertifySettings, {**given, **reused_settings(given)})
    return found


def verify(a: PathLike | Result[Any], b: PathLike | Result[Any] | None = None, **settings: Any) -> Verified:
    """Do what `pfp verify` does.

    Args:
        a: path of a file or of a run folder, or what `compress` returned.
        b: the same for the second network; None compares the files of the run folder `a`.
        settings: the other fields of `VerifySettings`.

    Raises:
        PfpError: it could not be done; `error.hint` says what to do instead.
    """
    first = _folder(a)
    given = {"model": first, "other": None if b is None else _folder(b), **settings}
    reused = reused_settings({**given, "run": first}) if first.is_dir() else {}
    found: Verified = _job("verify", VerifySettings, {**given, **reused})
    return found


def compare(*runs: PathLike | Result[Any]) -> RunsCompared:
    """Do what `pfp compare` does.

    Args:
        runs: folders of runs, or what `compress` returned.

    Raises:
        PfpError: a folder is no run.
    """
    folders = [_folder(run) for run in runs]
    return compare_runs([(folder, read(folder)) for folder in folders])


def _run(name: str, kind: type[NetworkSettings], values: dict[str, Any]) -> Result[Any]:
    found = _job(name, kind, values)
    return Result(found.record, Path(found.folder), found.module)


def _job(name: str, kind: type[NetworkSettings], values: dict[str, Any]) -> Any:
    """Run the job of a command."""
    values = dict(values)
    example = values.pop("example", None)
    if example is not None and values.get("input_size") is None:
        values["input_size"] = _size(example)
    values["model"] = _model(values["model"])
    settings = from_python(kind, values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of libraries; what pfp has to say is in the record
        return getattr(import_module(f"pfpcli.jobs.{name}"), name)(settings, Console())


def _model(model: Model) -> Any:
    """A module in memory with a name; anything else as it is."""
    if isinstance(model, str | os.PathLike) or not callable(getattr(model, "state_dict", None)):
        return model
    return InMemoryModel(model, type(model).__name__)


def _size(example: Tensor) -> tuple[int, ...]:
    """The shape of one input, from a batch of them."""
    shape = tuple(getattr(example, "shape", ()))
    if len(shape) < 2:
        raise InputError(
            f"example: expected a batch of inputs, float[N, C, H, W], found {type(example).__name__} of shape {shape}",
            "for example `example=torch.randn(1, 3, 224, 224)`",
        )
    return tuple(int(side) for side in shape[1:])


def _folder(run: PathLike | Result[Any]) -> Path:
    if isinstance(run, Result):
        return run.folder
    if not isinstance(run, str | os.PathLike):
        raise InputError(f"run={run!r}: expected a path or the result of `compress`, found {type(run).__name__}")
    return Path(run)
