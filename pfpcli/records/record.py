"""Record: what one run did, as `run.json`. All that reports read; imports no torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pfpcli.errors import InputError

#: Raised when a field changes its meaning or goes; new fields do not raise it.
#: 1: the first one.
SCHEMA_VERSION = 1

#: The names of the files in a run folder.
FILES = {"onnx": "model.onnx", "pt2": "model.pt2", "pt": "model.pt", "plan": "plan.json", "run": "run.json"}


@dataclass
class Cost:
    """What a network costs.

    Attributes:
        params: numbers in its parameters.
        macs: multiply-adds for one input.
        bytes: size of its parameters and buffers.
        file_bytes: size of its ONNX file.
        latency_ms: median time of one inference of one input in onnxruntime.
        latency_iqr_ms: distance between the quartiles of that time.
    """

    params: int
    macs: int
    bytes: int
    file_bytes: int | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None


@dataclass
class Quality:
    """How well the networks do on images that took no part in scoring.

    Attributes:
        metric: "accuracy" (labels were there), "agreement" (top-1 same as the original's, per image or per pixel) or
            "similarity" (1 minus the relative L2 distance of the outputs).
        before, after: the metric, 0 to 1; without labels the original agrees with itself: 1.
        agreement: fraction of decisions that are the same as the original's; None where there are none.
        n: images.
        source: where they come from.
        distance: L2 distance of the outputs, relative to the original's.
    """

    metric: str
    before: float
    after: float
    agreement: float | None
    n: int
    source: str
    distance: float


@dataclass
class Verification:
    """What was checked on the cut network.

    Attributes:
        cut_vs_masked: largest difference to the masked original in float64, relative to the largest output; None where
            nothing was cut.
        onnx_vs_torch: the same between the ONNX file in onnxruntime and torch, in float32.
        model_pt: "ok", or why there is no model.pt.
        tolerance: the bound for each of the two differences.
    """

    cut_vs_masked: float | None
    onnx_vs_torch: float
    model_pt: str
    tolerance: dict[str, float]


@dataclass
class LayerRow:
    """One layer that holds weights or reads channels, before and after."""

    name: str
    op: str
    channels_in: tuple[int, int]
    channels_out: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int]


@dataclass
class GroupRow:
    """One group of channels; `frozen_reason` and `inexact` are empty where they do not apply."""

    name: str
    size: int
    kept: int
    frozen_reason: str
    inexact: str
    readers: tuple[str, ...]


@dataclass
class LayerError:
    """What is known about the error of one layer, relative to what its terms sum up to, and what it is.

    Attributes:
        name: of the layer.
        size, kept: channels it reads.
        total: sum of their sensitivities; None where the criterion measures none.
        draws: m, the draws that were made of them, or that the shared error stands for.
        epsilon: what so many draws keep within with probability 1 - delta.
        bound: what the error on the scored images is at most.
        measured: the largest on held-out images.
    """

    name: str
    size: int
    kept: int
    total: float | None = None
    draws: int | None = None
    epsilon: float | None = None
    bound: float | None = None
    measured: float | None = None


@dataclass
class Certificate:
    """The errors of all layers that lost channels.

    Attributes:
        delta: probability with which an epsilon may fail.
        images: on which the errors were measured.
        source: where they come from.
        layers: in the order they run.
    """

    delta: float
    images: int
    source: str
    layers: list[LayerError]


@dataclass
class Recovered:
    """What a recovery of a cut network came to, on images that it was not fitted to and that do not judge.

    Attributes:
        method: one of `pfpcli.recovery.RECOVERIES`.
        metric: "agreement" or "similarity" with the original.
        before, after: the metric, 0 to 1; None where there were no images to check it on.
        undone: whether it made the network worse, so that the network is as it was before.
        images: it was fitted to.
        checked: images it was checked on.
    """

    method: str
    metric: str
    before: float | None
    after: float | None
    undone: bool
    images: int
    checked: int


@dataclass(kw_only=True)
class Record:
    """What every run records.

    Attributes:
        status: "ok" or "failed".
        model: name, kind, sha256 and input size of what came in.
        settings: every setting, as given or by default.
        calibration: folder, counts and preprocessing.
        scoring: criterion and its parameters.
        trace: ops, ops without a rule, whether the batch size is free.
        artifacts: kind -> file name in the run folder, or None.
        timings: step -> seconds.
    """

    pfp_version: str
    status: str
    model: dict[str, Any]
    settings: dict[str, Any]
    quality: Quality
    verification: Verification
    calibration: dict[str, Any]
    scoring: dict[str, Any]
    trace: dict[str, Any]
    artifacts: dict[str, str | None]
    timings: dict[str, float]
    warnings: list[str]
    machine: dict[str, Any]
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="milliseconds"))
    schema_version: int = SCHEMA_VERSION

    def json(self) -> str:
        """The record as text, as it stands in run.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


@dataclass(kw_only=True)
class Run(Record):
    """Everything one compression did.

    Attributes:
        requested: {keep, of, epsilon}; where epsilon is given, keep did not count.
        achieved: {keep, exact}: what was reached, and whether it is within 0.5 % of the request.
        recovery: what was done after the cut, in order.
        latency: {threads, runs, batch} of the latency figures.
    """

    kind: str = "compress"
    requested: dict[str, Any]
    achieved: dict[str, Any]
    before: Cost
    after: Cost
    certificate: Certificate
    recovery: list[Recovered] = field(default_factory=list)
    latency: dict[str, Any]
    layers: list[LayerRow]
    groups: list[GroupRow]


@dataclass
class Filling:
    """How full a network is.

    Attributes:
        params: numbers in its parameters.
        nonzeros: those of them that are not zero.
        macs: multiply-adds for one input, zeros included.
        file_bytes: size of its ONNX file.
        deflated_bytes: size of that file after zlib's deflate, level 9.
    """

    params: int
    nonzeros: int
    macs: int
    file_bytes: int
    deflated_bytes: int


@dataclass
class SparseLayer:
    """A tensor of weights, before and after.

    Attributes:
        name: the layer.
        weights: numbers in it.
        nonzeros: those that are not zero, before and after.
        bound: largest error of an output on the scored images, relative to |W| |a|; None where nothing is known.
        error: the largest measured on the images that judge.
    """

    name: str
    weights: int
    nonzeros: tuple[int, int]
    bound: float | None
    error: float


@dataclass(kw_only=True)
class SparseRun(Record):
    """Everything one removal of single weights did.

    Attributes:
        requested: {keep}.
        achieved: {keep}: the fraction of the original's parameters that are there and not zero.
        dead: {channels, cut}: channels that nothing reads any more, and how many of them were cut off.
        layers: the tensors that weights went from, or could have.
    """

    kind: str = "sparsify"
    requested: dict[str, Any]
    achieved: dict[str, Any]
    before: Filling
    after: Filling
    dead: dict[str, int]
    layers: list[SparseLayer]


@dataclass
class Training:
    """What training with labels came to.

    Attributes:
        epochs: times that all images were seen; the last one may have been broken off.
        seconds: taken, those before an interrupt included.
        images: that were trained on.
        checked: images set aside that said when the network was best.
        accuracy: on those, before and after.
        teacher: name of the model it learned from as well, None if there was none.
        weight: share of that in the loss.
    """

    epochs: float
    seconds: float
    images: int
    checked: int
    accuracy: tuple[float, float]
    teacher: str | None
    weight: float

    @property
    def has_helped(self) -> bool:
        """Whether the weights were changed: what is not better is not kept."""
        return self.accuracy[1] > self.accuracy[0]


@dataclass(kw_only=True)
class TunedRun(Record):
    """Everything one fine-tuning did; `quality` is that of the network before and after it.

    Attributes:
        run: name of the folder of the run it began with.
        before, after: what the original costs, and what the network does; fine-tuning changes neither.
        training: what it came to.
    """

    kind: str = "finetune"
    run: str
    before: Cost
    after: Cost
    training: Training


#: Whatever a run folder can hold.
AnyRun = Run | SparseRun | TunedRun


def read(path: Path) -> AnyRun:
    """Read a run from its folder or its run.json; a record without a kind is one of a compression.

    Raises:
        InputError: there is none, or it was written by another version of the schema.
    """
    file = path / FILES["run"] if path.is_dir() else path
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if data["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{path.name}: schema version {data['schema_version']}, this pfp reads version {SCHEMA_VERSION}",
                "use the pfp that wrote it, or compress again",
            )
        return _KINDS[data.get("kind", "compress")](data)
    except FileNotFoundError:
        raise InputError(
            f"{path.name}: no run here (no {FILES['run']})",
            "name a run folder, e.g. `pfp report pfp-runs/model-keep0.40`",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path.name}: not a run record ({error})", "name a folder that `pfp compress` or `pfp sparsify` wrote"
        ) from error


def _run(data: dict[str, Any]) -> Run:
    _make(data, before=Cost, after=Cost, quality=Quality, verification=Verification)
    certificate = data["certificate"]
    rows = [LayerError(**row) for row in certificate.pop("layers")]
    data["certificate"] = Certificate(**certificate, layers=rows)
    data["recovery"] = [Recovered(**row) for row in data.get("recovery", [])]
    data["layers"] = [LayerRow(**row) for row in data["layers"]]
    data["groups"] = [GroupRow(**row) for row in data["groups"]]
    return Run(**data)


def _sparse_run(data: dict[str, Any]) -> SparseRun:
    _make(data, before=Filling, after=Filling, quality=Quality, verification=Verification)
    data["layers"] = [SparseLayer(**row) for row in data["layers"]]
    return SparseRun(**data)


def _tuned_run(data: dict[str, Any]) -> TunedRun:
    data["training"]["accuracy"] = tuple(data["training"]["accuracy"])
    _make(data, before=Cost, after=Cost, quality=Quality, verification=Verification, training=Training)
    return TunedRun(**data)


def _make(data: dict[str, Any], **kinds: Callable[..., Any]) -> None:
    """Put objects in the place of the dictionaries they were written as."""
    for name, kind in kinds.items():
        data[name] = kind(**data[name])


#: Kind of a run -> what makes it of a record.
_KINDS: dict[str, Callable[[dict[str, Any]], AnyRun]] = {
    "compress": _run,
    "sparsify": _sparse_run,
    "finetune": _tuned_run,
}
