"""Options that fail a command where a measure of a run is not good enough: for CI."""

from __future__ import annotations

from typing import Annotated

from pfpcli.cli.flags import OUTPUT, flag
from pfpcli.errors import InputError
from pfpcli.records.measures import MEASURES, Limit
from pfpcli.settings.text import parse_share

_MEASURES = "; ".join(f"{name} ({measure.meaning})" for name, measure in MEASURES.items())


def limits(
    fail_under: Annotated[
        list[str] | None,
        flag(
            OUTPUT,
            "Fail (exit code 1) if a measure of a run is below a number, e.g. accuracy=95%. Repeatable.",
            metavar="METRIC=VALUE",
        ),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        flag(
            OUTPUT,
            "Fail (exit code 1) if a measure of a run is above a number, e.g. drop=1%. Repeatable. "
            f"Measures: the name of the metric; {_MEASURES}.",
            metavar="METRIC=VALUE",
        ),
    ] = None,
) -> list[Limit]:
    """What the runs have to keep."""
    return [
        *(_limit("--fail-under", text, is_least=True) for text in fail_under or ()),
        *(_limit("--fail-over", text, is_least=False) for text in fail_over or ()),
    ]


def _limit(flag: str, text: str, is_least: bool) -> Limit:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"{flag} {text}: expected METRIC=VALUE", f"for example `{flag} accuracy=95%`")
    return Limit(flag, name, parse_share(f"{flag} {name}", value, like="0.95 or 95%"), is_least)
