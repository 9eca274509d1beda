"""The table of a run's quality on damaged images, and the sentence that says where it is worse than the headline."""

from __future__ import annotations

from pfpcli.records.robustness import Damage, Robustness
from pfpcli.records.runs import Run
from pfpcli.report import numbers
from pfpcli.report.page import Page


def robustness(page: Page, run: Run, everything: bool) -> None:
    """Write one row for each corruption and one sentence; nothing for a run without damaged images."""
    found = run.robustness
    if found is None:
        return
    page.space()
    head, *_ = table = rows(found, everything)
    page.paragraph("", conditions(found))
    page.table(table, "<" + ">" * (len(head) - 1), drop=(2, 4))
    page.paragraph("", sentence(found))


def rows(found: Robustness, everything: bool) -> list[tuple[str, ...]]:
    """Return the rows of the table, its heading first: a row for each corruption, a column for each strength."""
    strengths = [str(strength + 1) for strength in range(max(len(damage.constants) for damage in found.damages))]
    return [
        (f"{found.metric}, %", *strengths),
        ("undamaged", _cell(found.before, found.after, everything), *("" for _ in strengths[1:])),
        *(
            (damage.corruption, *(_cell(a, b, everything) for a, b in zip(damage.before, damage.after, strict=True)))
            for damage in found.damages
        ),
    ]


def conditions(found: Robustness) -> str:
    """Return which images were damaged, and how much."""
    told = ", before → after" if found.before < 1 else ""
    return f"{found.n} {found.source} damaged at the strengths of {found.constants_of}{told}"


def _cell(before: float, after: float, everything: bool) -> str:
    """Return `84 → 61`; only the second number where the original is the measure."""
    decimals = 1 if everything or before == 1 else 0
    cut = f"{100 * after:.{decimals}f}"
    return cut if before == 1 else f"{100 * before:.{decimals}f} → {cut}"


def sentence(found: Robustness) -> str:
    """Say where the network falls by more than on undamaged images, beyond chance."""
    fall = found.before - found.after
    headline = f"its fall on undamaged images ({numbers.points(found.before, found.after)})"
    worse = [(damage, where) for damage in found.damages if (where := _worse(damage, fall))]
    if not worse:
        return f"The network is nowhere worse than {headline}, beyond chance."
    parts = []
    for damage, where in worse:
        worst = max(where, key=lambda i, damage=damage: damage.before[i] - damage.after[i])  # type: ignore[misc]
        change = numbers.points(damage.before[worst], damage.after[worst])
        parts.append(f"{damage.corruption} (strength {worst + 1}: {change})")
    return f"The network is worse than {headline} under {', '.join(parts)}."


def _worse(damage: Damage, fall: float) -> list[int]:
    rows = zip(damage.before, damage.after, damage.margins, strict=True)
    return [i for i, (before, after, margin) in enumerate(rows) if before - after > fall + margin]
