"""Amounts: what a budget can count, and how much of it. This module does not import torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pfpcli.errors import InputError

_COUNTS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20}
_TIMES = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Counted:
    """What a budget counts.

    Attributes:
        cost: the field of `cost.Costs` that predicts it.
        noun: in a sentence, e.g. "40 % of the parameters".
        units: unit -> how much it is.
        like: an amount in a unit, as an example.
        is_measured: whether the written file decides, not the prediction.
    """

    cost: str
    noun: str
    units: dict[str, float]
    like: str
    is_measured: bool = False


COUNTED: dict[str, Counted] = {
    "params": Counted("params", "parameters", _COUNTS, "1M"),
    "macs": Counted("macs", "MACs", _COUNTS, "200M"),
    "size": Counted("bytes", "file size", _BYTES, "2MB", is_measured=True),
    "latency": Counted("ms", "latency", _TIMES, "4ms", is_measured=True),
}


def noun_of(requested: Mapping[str, Any]) -> str:
    """Return what was budgeted, in a sentence: "parameters", "latency", "latency in int8".

    Args:
        requested: of a record, see `pfpcli.records.runs.Run`.
    """
    noun, precision = COUNTED[requested["of"]].noun, requested.get("precision", "float32")
    return noun if precision == "float32" else f"{noun} in {precision}"


@dataclass(frozen=True)
class Amount:
    """An amount of what a budget counts.

    Attributes:
        of: one of `COUNTED`.
        fraction: of the original's; None where the amount is absolute.
        absolute: the number, bytes or milliseconds; None where the amount is a fraction.
        text: as it was typed.
    """

    of: str
    fraction: float | None
    absolute: float | None
    text: str


def parse_amount(of: str, given: str | float) -> Amount:
    """Return `0.6`, `60%`, `4ms`, `2MB`, `200M` as an amount.

    A number up to 1 and a percentage are fractions of the original's; larger numbers are counts.

    Args:
        of: one of `COUNTED`.
        given: as it was typed.

    Raises:
        InputError: it is no positive amount of this measure.
    """
    measure, text = COUNTED[of], str(given).strip()
    found = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)\s*([^\s0-9]*)", text)
    try:
        value = float(found[1]) if found else -1.0
    except ValueError:
        value = -1.0
    unit = found[2] if found else ""
    is_fraction = unit == "%" or (unit == "" and value <= 1)
    if value > 0 and is_fraction:
        fraction = value / 100 if unit == "%" else value
        if fraction <= 1:
            return Amount(of, fraction, None, text)
    elif value > 0 and unit in measure.units:
        return Amount(of, None, value * measure.units[unit], text)
    raise InputError(
        f"--{of} {text}: expected a fraction of the original's, or an amount such as {measure.like}",
        f"for example `--{of} 0.6` or `--{of} {measure.like}`",
    )
