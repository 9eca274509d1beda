"""Advice: what helps a network whose quality fell, in one line."""

from __future__ import annotations

from collections.abc import Iterator

from pfpcli.images.calibration import Division
from pfpcli.jobs.steps.judge import status
from pfpcli.outputs.quality import LOSS
from pfpcli.records.parts import Quality

#: The criterion that chooses the channels that a refit replaces best.
REPLACEABLE = "obs"
#: With more images than this, layers are not refitted noticeably better.
ENOUGH = 256


def after_pruning(
    quality: Quality, keep: float | None, division: Division, *, criterion: str, has_trained: bool
) -> str:
    """Return what helps a pruned network; "" if it still works.

    Args:
        quality: of the network.
        keep: the fraction to keep that is expected to be enough; None where it is not known.
        division: the images.
        criterion: the one that scored the channels.
        has_trained: whether the run trained the network.
    """
    return _advice(quality, _means_after_pruning(keep, division, criterion, has_trained=has_trained))


def after_sparsifying(quality: Quality) -> str:
    """Return what helps a network that lost single weights; "" if it still works."""
    return _advice(quality, iter(("keep more (--keep)", "train with labels (pfp finetune)")))


def share_to_keep(quality: Quality) -> float:
    """Return the share of a run's loss that is expected to cost less quality than makes a run worse."""
    return LOSS / max(LOSS, quality.before - quality.after)


def _advice(quality: Quality, means: Iterator[str]) -> str:
    return "" if status(quality)[0] == "ok" else f"what helps: {'; '.join(means)}"


def _means_after_pruning(keep: float | None, division: Division, criterion: str, *, has_trained: bool) -> Iterator[str]:
    yield "keep more (--keep)" if keep is None else f"keep more (--keep {keep:g} is expected to do)"
    if criterion != REPLACEABLE:
        yield f"other channels (--criterion {REPLACEABLE})"
    yield "train longer (--minutes)" if has_trained else "train without labels (--recover lsq,distill --minutes 5)"
    if len(division.fitted) < ENOUGH:
        yield f"more images (layers were fitted to {len(division.fitted)}; up to {ENOUGH} help)"
