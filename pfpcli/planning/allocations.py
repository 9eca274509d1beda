"""Allocations: the table of allocators. An allocator decides how many channels each group keeps.

A new allocator is one row here and one function in this package. This module does not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from pfpcli.registry import register


@dataclass(frozen=True)
class Allocation:
    """One allocator.

    Attributes:
        function: where its function is, "module:function" in this package; see `allocators.Allocator`.
        summary: what it does, in a few words for --help.
        needs_curves: whether it reads curves (`curves.Curve`) and the prices of the groups.
        priced_by: what the prices count, one of `pfpcli.amounts.COUNTED` or `WORK`; "" for what the budget counts.
        shares_error: whether its number is a relative error that all layers share; the plan then records it.
    """

    function: str
    summary: str
    needs_curves: bool = False
    priced_by: str = ""
    shares_error: bool = False


#: The prices of `channels.cost.Predictor.work`.
WORK = "work"

_DISTANCE = "least distance of the outputs, measured group by group"
_DIVERGENCE = "least divergence of the outputs, measured group by group"
_ERROR = "least error of the layers, measured group by group"
_BY_MACS = ", for multiply-adds instead of what the budget counts"
_BY_WORK = ", for multiply-adds and numbers that are written"

ALLOCATIONS = register(
    ("distance", Allocation("allocators:least_distance", _DISTANCE, needs_curves=True)),
    ("divergence", Allocation("allocators:least_divergence", _DIVERGENCE, needs_curves=True)),
    ("error", Allocation("allocators:least_error", _ERROR, needs_curves=True)),
    (
        "macs-distance",
        Allocation("allocators:least_distance", _DISTANCE + _BY_MACS, needs_curves=True, priced_by="macs"),
    ),
    (
        "macs-divergence",
        Allocation("allocators:least_divergence", _DIVERGENCE + _BY_MACS, needs_curves=True, priced_by="macs"),
    ),
    ("work-distance", Allocation("allocators:least_distance", _DISTANCE + _BY_WORK, needs_curves=True, priced_by=WORK)),
    ("uniform", Allocation("allocators:uniform", "the same fraction everywhere")),
    ("inside", Allocation("allocators:uniform_inside", "the same fraction inside of residual blocks")),
    ("pfp", Allocation("allocators:shared_error", "one error bound for all layers", shares_error=True)),
)

#: The setting that tries several allocations and takes the plan whose network is the best, and what it tries.
BEST, TRIED = "best", ("distance", "divergence", "error", "uniform", "inside")
#: What a budget counts -> what is tried besides. The times of small layers say less than their multiply-adds. And
#: multiply-adds say nothing of large maps of few channels, which take time and tell little.
TRIED_FOR = {"latency": ("macs-distance", "macs-divergence", "work-distance"), "macs": ("work-distance",)}
#: What is tried where no image is left to measure with.
UNMEASURED = "uniform"
