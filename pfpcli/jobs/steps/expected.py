"""Expected: which steps a run of `compress` will take, and how long compared with one another.

The ratios are rounded medians of the seconds in docs/benchmarks.md (`make bench`).
"""

from __future__ import annotations

from pfpcli.planning.allocations import ALLOCATIONS, BEST
from pfpcli.progress import Forecast, Like
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.settings import CompressSettings

#: The step that writes the ONNX files: cut in place, or by torch's exporter, which takes long.
_IN_PLACE, _BY_TORCH = Like("trace", 0.5), Like("trace", 8)


def forecast(settings: CompressSettings, kind: str) -> Forecast | None:
    """Return the expected times of a run that makes one network; None where they are not known.

    Args:
        settings: of the run.
        kind: of the model, see `LoadedModel`.
    """
    makes_several = settings.is_searched or settings.steps > 1 or settings.measure in ("size", "latency")
    judges_more = settings.metric is not None or settings.robustness or bool(settings.precisions)
    if makes_several or judges_more or any(RECOVERIES[method].trains for method in settings.recover):
        return None
    expected = {"score": Like("trace", 5)}
    if settings.epsilon is None and settings.allocate == BEST:
        expected["curves"], expected["plan"] = Like("score", 2.6), Like("score", 2.2)
    elif settings.epsilon is None and ALLOCATIONS[settings.allocate].needs_curves:
        expected["curves"] = Like("score", 2.6)
    if settings.recover:
        expected["recover"] = Like("score", 1.3)
    expected["certify"], expected["evaluate"] = Like("score", 0.2), Like("score", 0.1)
    expected["export"] = _IN_PLACE if kind == "onnx" else _BY_TORCH
    expected["measure"] = Like("score", 0.2)
    return Forecast(expected)
