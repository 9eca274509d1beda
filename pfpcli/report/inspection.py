"""The page of `pfp inspect`: which channels of a network can be pruned, which cannot, and why."""

from __future__ import annotations

from pfpcli.records.inspection import GroupSeen, Inspection
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page, spell

#: Number of groups and of ops, unless everything is shown.
GROUPS, OPS = 20, 8


def render(found: Inspection, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page of `pfp inspect`.

    Args:
        found: the document.
        width: number of columns, at least 60.
        everything: whether to show all groups with all their members, and all ops.
        unicode: whether characters beyond ASCII may be used.

    Returns:
        Lines such as

            model.pt: 272.5 k parameters, 40.8 M MACs, input 3×32×32; batch, height, width open

              group         channels   params  used by              status
              conv1               16   29.4 k  layer1.0.conv1 +6    prunable
              linear              10    650    –                    frozen: output of the model

              71 ops, all with a rule: conv2d ×21, batch_norm ×21, relu ×19 …
              11 of 13 groups are prunable: 99.8 % of the parameters, 100.0 % of the MACs
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    size = "×".join(map(str, found.model["input_size"]))
    free = f"; {', '.join(found.open)} open" if found.open else "; all sizes fixed"
    costs = f"{numbers.count(found.params)} parameters, {numbers.count(found.macs)} MACs"
    page.paragraph("", f"{found.model['name']}: {costs}, input {size}{free}", indent=0)
    if found.stops:
        values = "the sizes of later values depend on the input, and the steps that compute them stay as they are"
        nodes = "these nodes and all later nodes stay as they are"
        why = nodes if found.model["kind"] == "onnx" else values
        page.paragraph("", f"followed up to {', '.join(found.stops)}: {why}", indent=0)
    _groups(page, found.groups, everything)
    _ops(page, found, everything)
    page.space()
    parts.roles(page, found.outputs, everything)
    page.space()
    free_groups = sum(not group.frozen_reason for group in found.groups)
    page.paragraph(
        "",
        f"{free_groups} of {len(found.groups)} groups are prunable: {numbers.percent(found.prunable['params'])} of the "
        f"parameters, {numbers.percent(found.prunable['macs'])} of the MACs",
    )
    return page.text()


def _groups(page: Page, groups: list[GroupSeen], everything: bool) -> None:
    """Write the table of groups. Frozen groups come first when the table is cut: readers look for those."""
    ranked = sorted(range(len(groups)), key=lambda i: (not groups[i].frozen_reason, i))
    shown = sorted(range(len(groups)) if everything else ranked[:GROUPS])
    page.space()
    rows = [("group", "channels", "params", "used by", "status")]
    rows += [
        (g.name, str(g.size), numbers.count(g.params), _few(g.readers), _status(g)) for g in (groups[i] for i in shown)
    ]
    page.table(rows, "<>><<", shrink=0, drop=(3, 2))
    if len(groups) > len(shown):
        page.paragraph("", f"… {len(groups) - len(shown)} more, --all")
    _reasons(page, groups, everything)
    if everything:
        page.space()
        for group in groups:
            page.paragraph(f"{spell(group.name, page.unicode)}  ", f"sits in {', '.join(group.members) or 'no tensor'}")


def _reasons(page: Page, groups: list[GroupSeen], everything: bool) -> None:
    """Write why groups are frozen or inexact, and how many parameters that concerns."""
    reasons: dict[str, list[GroupSeen]] = {}
    for group in groups:
        if group.frozen_reason or group.inexact:
            reasons.setdefault(group.frozen_reason or f"inexact: {group.inexact}", []).append(group)
    page.space()
    for reason, members in reasons.items():
        held = numbers.count(sum(group.params for group in members))
        word = "frozen" if members[0].frozen_reason else "prunable"
        channels = sum(group.size for group in members)
        names = [group.name for group in members]
        text = f"{reason}: {_few(names, 3 if not everything else len(names))} ({channels} channels, {held} parameters)"
        page.paragraph(f"{word}  ", text)


def _status(group: GroupSeen) -> str:
    if group.frozen_reason:
        return "frozen"
    return "prunable, inexact" if group.inexact else "prunable"


def _few(names: list[str] | tuple[str, ...], count: int = 1) -> str:
    shown = ", ".join(names[:count]) or "–"
    return f"{shown} +{len(names) - count}" if len(names) > count else shown


def _ops(page: Page, found: Inspection, everything: bool) -> None:
    page.space()
    total = sum(found.ops.values())
    known = {op: times for op, times in found.ops.items() if op not in found.unknown}
    missing = sum(found.unknown.values())
    lead = f"{total} ops, all with a rule: " if not missing else f"{total} ops, {total - missing} with a rule: "
    page.paragraph(lead, _counted(known, everything))
    if missing:
        page.paragraph("no rule for: ", _counted(found.unknown, True))


def _counted(ops: dict[str, int], everything: bool) -> str:
    ranked = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked if everything else ranked[:OPS]
    text = ", ".join(f"{op.removeprefix('aten.').partition('.')[0]} ×{times}" for op, times in shown)
    return text + (f" … {len(ranked) - len(shown)} more" if len(ranked) > len(shown) else "")
