"""The lines on groups of channels in the report on a run of `pfp compress`: what was not pruned, and what is inexact.

A group is frozen for a reason, or its channels were dropped although a statistic over them changes, so that the cut
network is not the masked one. Each is reported by reason, those first that concern most channels; with everything, the
groups are named.
"""

from __future__ import annotations

from collections.abc import Sequence

from pfpcli.records.parts import GroupRow
from pfpcli.report.page import Page
from pfpcli.report.parts import plural

#: Why -> the channels that it concerns, by name of their group.
Reasons = dict[str, list[tuple[str, int]]]


def not_pruned(page: Page, groups: Sequence[GroupRow]) -> None:
    """Write the reasons why groups are frozen."""
    _table(page, "not pruned", frozen(groups))


def inexact(page: Page, groups: Sequence[GroupRow]) -> None:
    """Write the statistics that dropped channels change."""
    _table(page, "dropped although a statistic across channels changes", inexact_by_reason(groups))


def not_pruned_in_short(page: Page, groups: Sequence[GroupRow]) -> None:
    """Write one line: `not pruned: 2 groups, 13 channels: output of the model, input of the model`."""
    found = frozen(groups)
    if found:
        number = sum(map(len, found.values()))
        page.line("not pruned: ", f"{plural(number, 'group')}, {plural(_all(found), 'channel')}: {', '.join(found)}")


def inexact_in_short(page: Page, groups: Sequence[GroupRow]) -> None:
    """Write one line: `inexact: 3 channels dropped although a statistic across channels changes: layer_norm (norm)`."""
    found = inexact_by_reason(groups)
    if found:
        dropped = f"{plural(_all(found), 'channel')} dropped although a statistic across channels changes"
        page.line("inexact: ", f"{dropped}: {', '.join(found)}")


def frozen(groups: Sequence[GroupRow]) -> Reasons:
    """Return the frozen groups by reason."""
    return _by_reason([(g.frozen_reason, g.name, g.size) for g in groups if g.frozen_reason])


def inexact_by_reason(groups: Sequence[GroupRow]) -> Reasons:
    """Return the groups with dropped channels of which a statistic is taken, by the statistic."""
    return _by_reason([(g.inexact, g.name, g.size - g.kept) for g in groups if g.inexact and g.kept < g.size])


def _by_reason(found: Sequence[tuple[str, str, int]]) -> Reasons:
    """Gather (reason, name, channels) by reason, those first that concern most channels."""
    reasons: Reasons = {}
    for reason, name, channels in found:
        reasons.setdefault(reason, []).append((name, channels))
    return dict(sorted(reasons.items(), key=lambda item: -_sum(item[1])))


def _sum(rows: Sequence[tuple[str, int]]) -> int:
    return sum(channels for _, channels in rows)


def _all(reasons: Reasons) -> int:
    return sum(map(_sum, reasons.values()))


def _table(page: Page, heading: str, reasons: Reasons) -> None:
    """Write one paragraph for each reason: `10 channels  output of the model: linear`."""
    if not reasons:
        return
    page.space()
    page.paragraph("", heading)
    wide = max(len(str(_sum(rows))) for rows in reasons.values())
    for reason, rows in reasons.items():
        lead = f"{_sum(rows):>{wide}} channel{'s' if _sum(rows) != 1 else ' '}  "
        page.paragraph(lead, f"{reason}: {', '.join(dict.fromkeys(name for name, _ in rows))}", indent=4)
