"""Checks of values that several commands have. Each raises an InputError that names the flag."""

from __future__ import annotations

from math import isfinite

from pfpcli.errors import InputError
from pfpcli.planning.allocations import ALLOCATIONS, BEST

#: The fraction that is kept where nothing says how much.
KEEP = 0.5
#: Training sees all images this many times, where neither --epochs nor --minutes sets a limit.
EPOCHS = 30


#: The largest whole number that a setting may be.
MOST = 2**31 - 1


def check_count(flag: str, value: int | None, most: int = MOST) -> None:
    """Refuse a number of something that is not from 1 to `most`; None is no number."""
    if value is not None and value < 1:
        raise InputError(f"{flag} {value}: expected a whole number from 1 up")
    if value is not None and value > most:
        raise InputError(f"{flag} {value}: expected at most {most:,}")


def check_keep(flag: str, keep: float) -> None:
    """Refuse a fraction to keep that is not above 0 and at most 1."""
    if not (isfinite(keep) and 0 < keep <= 1):
        raise InputError(
            f"{flag} {keep:g}: expected a fraction above 0 and at most 1",
            "keep two fifths of the parameters with `--keep 0.4` or `--keep 40%`",
        )


def check_delta(delta: float) -> None:
    """Refuse a probability that is not between 0 and 1."""
    if not 0 < delta < 1:
        raise InputError(f"--delta {delta:g}: expected a probability above 0 and below 1", "e.g. --delta 1e-9")


def check_training_limits(epochs: int | None, minutes: float | None) -> None:
    """Refuse limits under which nothing would be trained."""
    check_count("--epochs", epochs)
    if minutes is not None and not (isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes {minutes:g}: expected a number above 0")


def check_allocate(allocate: str, bounds_errors: bool, criterion: str) -> None:
    """Refuse an allocator that shares an error among the layers, for a criterion that bounds no error."""
    if allocate != BEST and ALLOCATIONS[allocate].shares_error and not bounds_errors:
        raise InputError(
            f"--allocate {allocate}: criterion {criterion} bounds no error",
            "use --criterion pfp with it, or another of --allocate",
        )


def most_epochs(epochs: int | None, minutes: float | None) -> int | None:
    """The largest number of epochs that training may take; None where only time limits it."""
    return EPOCHS if epochs is None and minutes is None else epochs
