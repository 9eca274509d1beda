"""Outcome: everything a run came to, step by step, before it becomes a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.cutting.cut import Cut
from pfpcli.exporting.latency import Latency
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.models.load import LoadedModel
from pfpcli.planning.plan import Plan
from pfpcli.records.record import Certificate, Quality, Recovered, Run, Training, TunedRun, Verification
from pfpcli.scoring.scores import Scores
from pfpcli.settings import Finetune, Settings, Sparsity
from pfpcli.sparsity.sparse import Chosen, Seen
from pfpcli.sparsity.weights import Amount, Weights


@dataclass(frozen=True)
class Scored:
    """What the scoring step came to.

    Attributes:
        division: which images scored, and which do what later.
        readers: the layers that read channels.
        scores: of all units.
        seconds: it took.
        cached: the name of the scores in the cache, "" where there is to be none.
    """

    division: Division
    readers: list[Reader]
    scores: Scores
    seconds: float
    cached: str = ""


#: ONNX files before and after, or what they hold.
Files = tuple[Path | onnx.ModelProto, Path | onnx.ModelProto]


@dataclass(frozen=True)
class ExportedFiles:
    """What the export step came to.

    Attributes:
        files: kind -> file name in the run folder, or None.
        file_bytes: sizes of the ONNX files before and after.
        onnx_vs_torch: largest relative difference.
        model_pt: "ok", or why there is no model.pt.
        timed: what the latency before and after is of.
        is_whole: whether that is all of them.
        exported: what an ONNX graph that was exported anew has lost by that, and why it was; "" where it was not.
    """

    files: dict[str, str | None]
    file_bytes: tuple[int, int]
    onnx_vs_torch: float
    model_pt: str
    timed: Files
    is_whole: bool
    exported: str = ""


@dataclass(frozen=True)
class Outcome:
    """The values of all steps.

    Attributes:
        made: the cut network and how it was made.
        timed: latency before and after, of `batch` inputs at a time.
    """

    settings: Settings
    device: torch.device
    source: LoadedModel
    groups: Groups
    scored: Scored
    planned: Plan
    made: Cut
    recovered: list[Recovered]
    quality: Quality
    verification: Verification
    certificate: Certificate
    written: ExportedFiles
    timed: tuple[Latency, Latency]
    batch: int


@dataclass(frozen=True)
class Weighed:
    """What the scoring of single weights came to: as `Scored`, the weights, how many may stay, and their scores."""

    division: Division
    readers: list[Reader]
    weights: list[Weights]
    amount: Amount
    seen: Seen


@dataclass(frozen=True)
class SparseOutcome:
    """The values of all steps of a removal of single weights.

    Attributes:
        chosen: what becomes of each tensor.
        dead: channels that nothing reads any more.
        planned: the plan without them, None where they were not to be cut.
        smaller: the network with zeros in place, and without the channels that were cut.
        errors: of each tensor's layers, measured.
        deflated: sizes of the ONNX files, deflated, before and after.
    """

    settings: Sparsity
    device: torch.device
    source: LoadedModel
    groups: Groups
    weighed: Weighed
    chosen: list[Chosen]
    dead: int
    planned: Plan | None
    smaller: Graph
    errors: list[float]
    quality: Quality
    verification: Verification
    written: ExportedFiles
    deflated: tuple[int, int]


@dataclass(frozen=True)
class TunedOutcome:
    """The values of all steps of a fine-tuning; run: the record of what it began with."""

    settings: Finetune
    device: torch.device
    run: Run | TunedRun
    groups: Groups
    division: Division
    training: Training
    quality: Quality
    verification: Verification
    written: ExportedFiles
