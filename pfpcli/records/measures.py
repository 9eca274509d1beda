"""Measures: the numbers of a run by name, for comparisons and for limits that fail a CI job.

To add a measure, add a row to `MEASURES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from pfpcli.errors import InputError
from pfpcli.records.precision import Precision
from pfpcli.records.runs import AnyRun
from pfpcli.registry import register

#: Units of measures.
SHARE, COUNT, BYTES, MILLISECONDS, NUMBER = "share", "count", "bytes", "ms", "number"


@dataclass(frozen=True)
class Measure:
    """A number that a run has.

    Attributes:
        unit: one of SHARE, COUNT, BYTES, MILLISECONDS and NUMBER.
        of: run -> the number; None where the run does not have it.
        meaning: what the number is, for people.
    """

    unit: str
    of: Callable[[AnyRun], float | None]
    meaning: str


def headline(run: AnyRun) -> tuple[str, float, float]:
    """Return the user's metric, before and after, if the run has one; otherwise its quality."""
    metric = getattr(run, "metric", None)
    found: tuple[str, float, float] = (metric or run.quality).name_before_after()
    return found


def _keep(run: AnyRun) -> float | None:
    found = getattr(run, "achieved", {}).get("keep")
    return float(found) if isinstance(found, int | float) else None


def _after(name: str) -> Callable[[AnyRun], float | None]:
    """Return a function that reads a cost of the result; not every kind of run has every cost."""
    return lambda run: getattr(run.after, name, None)


#: What a run costs, in the order of the columns.
COSTS = register(
    ("params", Measure(COUNT, _after("params"), "parameters")),
    ("nonzeros", Measure(COUNT, _after("nonzeros"), "parameters that are not 0")),
    ("macs", Measure(COUNT, _after("macs"), "multiply-adds")),
    ("size", Measure(BYTES, _after("file_bytes"), "bytes of the ONNX file")),
    ("latency", Measure(MILLISECONDS, _after("latency_ms"), "milliseconds of one inference in onnxruntime")),
)
#: The costs that a network has in every precision; the others are those of one file.
SHARED = tuple(name for name, cost in COSTS.items() if cost.unit == COUNT)
MEASURES = register(
    ("quality", Measure(SHARE, lambda run: headline(run)[2], "the metric, or the quality without --metric")),
    ("drop", Measure(SHARE, lambda run: headline(run)[1] - headline(run)[2], "how far that fell")),
    ("agreement", Measure(SHARE, lambda run: run.quality.agreement, "same decisions as the original")),
    ("distance", Measure(NUMBER, lambda run: run.quality.distance, "relative L2 distance of the outputs")),
    ("keep", Measure(SHARE, _keep, "share that the network keeps")),
    *COSTS.items(),
)


def values(run: AnyRun) -> dict[str, float]:
    """Return the measures that a run has, by name; the metric has a name of its own as well."""
    found = {name: measure.of(run) for name, measure in MEASURES.items()}
    found[run.quality.metric] = run.quality.after
    name, _, after = headline(run)
    found[name] = after
    return {name: value for name, value in found.items() if value is not None}


def values_of_file(run: AnyRun, file: Precision) -> dict[str, float]:
    """Return the measures of a file of a run in another precision, by name, as far as they are known."""
    found = {name: COSTS[name].of(run) for name in SHARED}
    found |= {"size": file.file_bytes, "latency": file.latency_ms}
    if (quality := file.quality) is not None:
        found |= {quality.metric: quality.at(run.quality)[1]}
        found |= {"agreement": quality.agreement, "distance": quality.distance}
    name, before, _ = headline(run)
    after = found.get(name) if getattr(run, "metric", None) is None else file.metric
    found |= {name: after, "quality": after, "drop": None if after is None else before - after}
    return {name: value for name, value in found.items() if value is not None}


def unit(name: str, run: AnyRun) -> str:
    """Return the unit of a measure of a run; a metric of the user has any."""
    is_own = getattr(run, "metric", None) is not None and name in ("quality", "drop", headline(run)[0])
    if is_own and name != run.quality.metric:
        return NUMBER
    return MEASURES[name].unit if name in MEASURES else SHARE


@dataclass(frozen=True)
class Limit:
    """A limit of a measure.

    Attributes:
        flag: the flag that gave it, for messages.
        name: the measure.
        value: the limit.
        is_least: whether the measure must not be below it; otherwise it must not be above it.
    """

    flag: str
    name: str
    value: float
    is_least: bool

    def is_kept(self, run: AnyRun) -> bool:
        """Whether a run keeps it; a measure that is nan keeps none."""
        value = self.of(run)
        return value >= self.value if self.is_least else value <= self.value

    def of(self, run: AnyRun) -> float:
        """Return the measure of a run.

        Raises:
            InputError: the run does not have it.
        """
        found = values(run)
        if self.name not in found:
            close = get_close_matches(self.name, found, 1)
            hint = f"did you mean `{self.flag} {close[0]}=…`?" if close else ""
            raise InputError(f"{self.flag} {self.name}: the run has no such measure, it has {', '.join(found)}", hint)
        return found[self.name]
