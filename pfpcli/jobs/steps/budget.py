"""Budget: what is asked for, as a keep ratio; for a file size or a latency, plans whose written file meets it.

The size of a file and its latency are predicted while plans are made. Then the file of a plan is written and measured,
and the next plan is made for what the prediction was wrong by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor

from pfpcli import processes
from pfpcli.amounts import COUNTED, noun_of
from pfpcli.channels.cost import Costs, Predictor
from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import cut
from pfpcli.errors import CheckFailed, InputError
from pfpcli.exporting.in_8_bits import INT8
from pfpcli.images.calibration import Division
from pfpcli.jobs.step_store import StepStore
from pfpcli.jobs.steps.export import OnnxWriter
from pfpcli.jobs.steps.plan import Planned
from pfpcli.latency.conversion import FLOAT32, Conversion
from pfpcli.latency.files import BLOCKS, Latency, latency
from pfpcli.latency.prediction import TimedPredictor
from pfpcli.latency.table import Table
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.portfolio import Tried
from pfpcli.progress import Console
from pfpcli.report import numbers
from pfpcli.settings import CompressSettings

#: A file meets its budget if it is within this fraction of it.
MEASURED_WITHIN = 0.03
#: At most this many files are written and measured.
_ROUNDS = 5
#: Keep ratios that differ by less than this fraction lead to the same plan.
_SAME = 0.002

#: How networks are timed in each precision.
TIMED_IN = {each.precision: each for each in (FLOAT32, INT8)}

#: The file of the plan that is measured.
_CANDIDATE = "candidate.onnx"
#: Measure -> how an amount of it is written.
_SHOWN: dict[str, Callable[[float], str]] = {
    "params": numbers.count,
    "macs": numbers.count,
    "size": numbers.size,
    "latency": "{:.3g} ms".format,
}


def predictor_for(groups: Groups, settings: CompressSettings, console: Console) -> Predictor:
    """Return what predicts the costs of plans; for a latency, the operators of the network are timed.

    Raises:
        InputError: the table of another machine lacks operators of the network.
    """
    if settings.measure != "latency":
        return Predictor(groups)
    with console.step("time") as step:
        conversion, file = TIMED_IN[settings.timed_in], settings.latency_table
        table = Table.here(settings.threads, conversion) if file is None else Table.read(file, conversion)
        predictor = TimedPredictor(groups, table, lambda done, of: step.progress(done, of, "operators"))
        known = f"{len(predictor.layers)} layers"
        left_out = f" · without {', '.join(sorted(set(predictor.unknown)))}" if predictor.unknown else ""
        precision = "" if conversion is FLOAT32 else f" in {conversion.precision}"
        step.summary = f"{predictor.timed} operators timed{precision} for {known}{left_out}"
    return predictor


def as_timed(file: Path | onnx.ModelProto, conversion: Conversion, flags: str) -> onnx.ModelProto:
    """Return a float network in the precision in which it is timed.

    Args:
        file: the network.
        conversion: to the precision.
        flags: what was typed, for the message.

    Raises:
        InputError: onnxruntime's tools cannot convert it.
    """
    try:
        return conversion.convert(onnx.load(file) if isinstance(file, Path) else file)
    except Exception as error:  # the tools of onnxruntime raise any kind of error
        precision, said = conversion.precision, " ".join(str(error).split())
        raise InputError(
            f"{flags}: the network cannot be timed in {precision} ({said})",
            f"without --{precision}, the float network is timed",
        ) from error


@dataclass(frozen=True)
class Meter:
    """Measures the files of plans against the file of the original.

    Attributes:
        of: what it measures: "size" or "latency".
        writer: writes ONNX files.
        groups: the groups of the original.
        division: has the images that are timed.
        threads: of onnxruntime.
        scratch: a folder for files.
        store: the finished steps of the job.
        conversion: to the precision in which files are timed.
    """

    of: str
    writer: OnnxWriter
    groups: Groups
    division: Division
    threads: int | None
    scratch: Path
    store: StepStore
    conversion: Conversion = FLOAT32

    @property
    def noun(self) -> str:
        """What it measures, in a sentence."""
        return noun_of({"of": self.of, "precision": self.conversion.precision})

    def whole(self) -> float:
        """Return the bytes or the milliseconds of the original's file."""
        return self.store.value(self._whole, float, "whole", self.of, self.threads, self.conversion.precision)[0]

    def share(self, plan: Plan) -> float:
        """Write the file of a plan, and return its size or latency as a part of the original's."""
        parts = self.of, self.threads, self.conversion.precision, plan.alive.tobytes()
        return self.store.value(lambda: self._share(plan), float, "check", *parts)[0]

    def _whole(self) -> float:
        if self.of == "size":
            return float(self.writer.original.stat().st_size)
        return self._timed(map(self._as_timed, [self.writer.original]))[0].median_ms

    def _share(self, plan: Plan) -> float:
        path = self.scratch / _CANDIDATE
        files = self.writer.timed(path, self.writer.write(cut(self.groups.labelled, plan.alive).graph, path))
        if self.of == "size":
            return path.stat().st_size / self.writer.original.stat().st_size
        before, after = self._timed(map(self._as_timed, files))
        return after.part_of(before)

    def part_of(self, original: Path | onnx.ModelProto, file: Path | onnx.ModelProto) -> float:
        """Return the latency of a file as a part of the original's in the precision that counts.

        Args:
            original: the float network.
            file: the written file, in that precision.
        """
        before, after = self._timed([self._as_timed(original), file])
        return after.part_of(before)

    def race(self, plans: Sequence[Plan | None]) -> list[Latency] | None:
        """Time the files of plans in turn, see `widths.Race`; None where one cannot be written."""

        def raced() -> list[Latency] | None:
            graphs = [None if plan is None else cut(self.groups.labelled, plan.alive).graph for plan in plans]
            try:
                # files that `BLOCKS` blocks cannot tell apart take nearly the same time: either may win
                return self._timed(self.writer.to_time(graphs, self._inputs), BLOCKS)
            except CheckFailed:
                return None

        return processes.of_first(raced)

    def _timed(self, files: Iterable[Path | onnx.ModelProto], most: int | None = None) -> list[Latency]:
        return latency([*files], self._inputs, self.threads, most)

    def _as_timed(self, file: Path | onnx.ModelProto) -> Path | onnx.ModelProto:
        """Return a float network in the precision that counts."""
        return (
            file
            if self.conversion is FLOAT32
            else as_timed(file, self.conversion, f"--{self.conversion.precision} --latency")
        )

    @cached_property
    def _inputs(self) -> list[Tensor]:
        return [self.division.samples(self.groups.labelled.graph.fixed_batch or 1)]


def meter_for(
    settings: CompressSettings,
    writer: OnnxWriter,
    groups: Groups,
    division: Division,
    scratch: Path,
    store: StepStore,
) -> Meter:
    """Return what measures the files of plans."""
    conversion = TIMED_IN[settings.timed_in]
    return Meter(settings.measure, writer, groups, division, settings.threads, scratch, store, conversion)


def budget_of(
    settings: CompressSettings, predictor: Predictor, meter: Meter
) -> tuple[Budget, tuple[Meter, float] | None]:
    """Return the budget that was asked for.

    Args:
        settings: of the job.
        predictor: of the network.
        meter: measures its files, for a size or a latency.

    Returns:
        (the budget for the first plan; for a size or a latency that can be measured here, the meter and the share of
        the original's that the written file is to have).

    Raises:
        InputError: the network has no more than was asked for.
    """
    share = _share(settings, predictor, meter)
    is_measured = COUNTED[settings.measure].is_measured and settings.latency_table is None
    keep = _first_guess(share, predictor, meter) if settings.measure == "size" else share
    budget = Budget(keep, settings.measure, settings.epsilon, settings.multiple_of, settings.min_channels)
    return budget, (meter, share) if is_measured and not settings.is_searched and share < 1 else None


def _share(settings: CompressSettings, predictor: Predictor, meter: Meter) -> float:
    """Return the share of the original's that is asked for."""
    amount = settings.amount
    if amount is None or amount.absolute is None:
        return settings.fraction
    if isinstance(predictor, TimedPredictor) and predictor.table.network_ms is not None:
        whole = predictor.table.network_ms
    else:
        whole = meter.whole() if COUNTED[amount.of].is_measured else _whole(predictor).of(amount.of)
    if amount.absolute >= whole:
        raise InputError(
            f"--{amount.of} {amount.text}: the network has {_SHOWN[amount.of](whole)} already",
            f"ask for less, or for a part of it, e.g. `--{amount.of} 0.6`",
        )
    return amount.absolute / whole


def _whole(predictor: Predictor) -> Costs:
    return predictor.at([len(vector.T) for vector in predictor.vectors])


def _first_guess(share: float, predictor: Predictor, meter: Meter) -> float:
    """Return the part of the tensors' bytes with which the file has a share: what else is in a file does not shrink."""
    return max(1e-3, 1 - (1 - share) * meter.whole() / _whole(predictor).bytes)


def met(
    make: Callable[[Budget, Tried | None], Planned],
    meter: Meter,
    share: float,
    budget: Budget,
    smallest: float,
    console: Console,
) -> Planned:
    """Make plans until the file of one has the size or the latency that is asked for.

    Args:
        make: makes a plan for a budget; one that is like another, or the best of several for None.
        meter: measures the file of a plan.
        share: of the original's, that the file is to have.
        budget: the first guess.
        smallest: the smallest keep ratio that there is a plan for.
        console: shows a step for each file.

    Returns:
        The plan whose file is closest, with the plans that were tried for the first guess.
    """
    points = [(1.0, 1.0)]
    found: list[Planned] = []
    tried: list[Tried] = []
    for _ in range(_ROUNDS):
        planned = make(budget, tried[0] if tried else None)
        tried = planned.tried or tried  # later plans are like the best one of the first guess
        with console.step("check") as step:
            measured = meter.share(planned.plan)
            step.summary = (
                f"{numbers.percent(measured)} of the {meter.noun} in the written file, asked {100 * share:.4g} %"
            )
        found.append(replace(planned, measured=measured, tried=tried))
        if abs(measured - share) <= MEASURED_WITHIN * share:
            break
        points.append((planned.plan.achieved, measured))
        keep = max(_next(points, share), smallest)
        if abs(keep - budget.keep) <= _SAME * keep:
            break
        budget = replace(planned.plan.budget, keep=keep)  # with the widths that were chosen
    return min(found, key=lambda each: abs((each.measured or 0) - share))


def _next(points: list[tuple[float, float]], share: float) -> float:
    """Return the predicted ratio at which the measured one is expected to be a share: by the line through two points.

    They are the nearest one on each side of the share; as long as all points are above it, the two nearest ones.

    Args:
        points: (predicted, measured) of the original and of the plans so far.
        share: what is asked for.
    """
    nearest = sorted(points, key=lambda point: abs(point[1] - share))
    a, at_a = nearest[0]
    across = [point for point in nearest if (point[1] > share) != (at_a > share)]
    b, at_b = (across or nearest[1:])[0]
    slope = (at_b - at_a) / (b - a) if abs(b - a) > 1e-6 else 1.0
    slope = slope if slope > 0.1 else 1.0  # noise of the measurement
    return float(np.clip(a + (share - at_a) / slope, 0.5 * a, min(1.0, 1.5 * a)))
