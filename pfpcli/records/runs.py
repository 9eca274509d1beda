"""The record of a run, one type for each command that writes a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pfpcli.records.document import Document
from pfpcli.records.parts import (
    Certificate,
    Cost,
    Filling,
    GroupRow,
    LayerRow,
    Quality,
    Recovered,
    SparseLayer,
    Training,
    UserMetric,
    Verification,
)
from pfpcli.records.precision import Precision
from pfpcli.records.robustness import Robustness
from pfpcli.records.searched import Search
from pfpcli.records.sources import Source


@dataclass(kw_only=True)
class Record(Document):
    """The fields that the records of all runs have.

    Attributes:
        pfp_version: version of pfp that wrote the record.
        status: "ok"; "worse" if the checks hold but the quality fell by more than the limit; or "failed".
        failure: why a run failed whose checks hold: the network is worth nothing; "" for all other runs.
        model: name, kind, sha256 and input size of the original.
        settings: every setting, given or default.
        quality: quality of the original and of the result.
        verification: the checks of the result.
        calibration: folder, numbers of images, preprocessing, and the hashes of both folders (`ImageSet.sha256`): of
            the calibration images, and of those that judge.
        scoring: criterion and its parameters.
        trace: number of ops, ops without a rule, and which sizes of the input are free.
        artifacts: kind of a file -> its name in the run folder, or None.
        timings: step -> seconds.
        memory: {traced, peak, steps}: the bytes that the process held once the network was traced, the most that it
            held after that, and step -> the most during it; empty where the system does not tell.
        warnings: what a user should know.
        machine: versions of libraries, platform and device.
        created: time in UTC, in ISO 8601.
        schema_version: version of the record's fields. 1: the first one.
        origins: setting -> where its value came from: "command line", a config file and its table, or the name of the
            run that it was taken from; a setting with its default is not there.
        advice: what helps a network whose quality fell; "" for all others.
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
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    schema_version: int = 1
    failure: str = ""
    advice: str = ""
    memory: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class Run(Record):
    """The record of `pfp compress`.

    Attributes:
        kind: "compress".
        requested: {keep, of, precision of the file that is measured, epsilon, amount as it was typed}; where epsilon is
            given, keep was not used.
        achieved: {keep, exact}: the keep ratio of the plan, and whether it is within 0.5 % of the request.
        before, after: cost of the original and of the result.
        certificate: the errors of layers.
        recovery: what was done after the cut, in order.
        latency: {threads, runs, batch} of the latency figures.
        layers: the layers, in the order in which they run.
        groups: the groups of channels.
        metric: the metric of the user; None where there is none.
        robustness: the quality on damaged images; None where it was not asked for.
        precisions: the float file and the files of lower precisions; empty where none was asked for.
        search: how the network was found whose quality falls by at most so much; None where keep was asked for.
        sources: the runs whose network was pruned further and whose plan was cut again, and the sweep that the run is a
            point of.
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
    metric: UserMetric | None = None
    precisions: list[Precision] = field(default_factory=list)
    robustness: Robustness | None = None
    search: Search | None = None
    sources: list[Source] = field(default_factory=list)


@dataclass(kw_only=True)
class SparseRun(Record):
    """The record of `pfp sparsify`.

    Attributes:
        kind: "sparsify".
        requested: {keep}.
        achieved: {keep}: number of nonzero parameters, relative to the number of the original's parameters.
        before, after: how many weights of the original and of the result are nonzero.
        dead: {channels, cut}: number of channels that no layer reads any more, and how many of them were cut off.
        layers: the tensors whose weights could be removed.
    """

    kind: str = "sparsify"
    requested: dict[str, Any]
    achieved: dict[str, Any]
    before: Filling
    after: Filling
    dead: dict[str, int]
    layers: list[SparseLayer]


@dataclass(kw_only=True)
class TunedRun(Record):
    """The record of `pfp finetune`; `quality` compares the network before and after the training.

    Attributes:
        kind: "finetune".
        run: name of the folder of the run whose network was trained.
        before, after: cost of the original and of the network; training changes neither.
        training: the effect of the training.
    """

    kind: str = "finetune"
    run: str
    before: Cost
    after: Cost
    training: Training


#: The record of any run.
AnyRun = Run | SparseRun | TunedRun
