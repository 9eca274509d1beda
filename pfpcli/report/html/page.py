"""The page of a run: its sections in the order of a reader's questions."""

from __future__ import annotations

from pfpcli.records.details import Details
from pfpcli.records.runs import AnyRun, Run
from pfpcli.report import run_groups
from pfpcli.report.html import behaviour, channels, layers, origin, skeleton, verdict
from pfpcli.report.html.frame import fill
from pfpcli.report.html.views import Reasons
from pfpcli.report.kinds import KINDS


def render(run: AnyRun, details: Details | None = None) -> str:
    """Return the page of a run as HTML.

    Args:
        run: the record.
        details: scores, curves and changed images; None leaves out the sections that are made of them.
    """
    word, sentence = verdict.verdict(run)
    kind = KINDS[type(run)]
    found = details.behaviour if details else None
    heading, *figures = kind.figures(run, everything=True)
    return fill(
        "page.html",
        pfp_version=run.pfp_version,
        run=run,
        word=word,
        sentence=sentence,
        chips=verdict.chips(run),
        asked=verdict.asked(run),
        heading=heading,
        figures=figures,
        notes=kind.notes(run),
        precisions=layers.precisions(run) if isinstance(run, Run) else None,
        layers=layers.table(run),
        skeleton=skeleton.skeleton(run),
        groups=channels.groups(run, details) if isinstance(run, Run) and details else [],
        loss=channels.meaning(run) if isinstance(run, Run) and details and details.curves else "",
        errors=channels.errors(run) if isinstance(run, Run) else None,
        behaviour=found,
        outputs=behaviour.outputs(run),
        classes=behaviour.classes(found) if found else None,
        changed=behaviour.changed(found) if found else [],
        damaged=behaviour.damaged(run.robustness) if isinstance(run, Run) and run.robustness else None,
        reasons=_reasons(run),
        command=origin.command(run),
        settings=origin.settings(run),
        facts=origin.facts(run),
    )


def _reasons(run: AnyRun) -> list[Reasons]:
    """Return what was not pruned and why, and what is inexact."""
    found = []
    if isinstance(run, Run):
        groups = {
            "not pruned": run_groups.frozen(run.groups),
            "dropped although a statistic across channels changes": run_groups.inexact_by_reason(run.groups),
        }
        for title, reasons in groups.items():
            rows = [
                (str(sum(number for _, number in named)), reason, ", ".join(dict.fromkeys(name for name, _ in named)))
                for reason, named in reasons.items()
            ]
            found += [Reasons(title, rows)] if rows else []
    unknown = run.trace.get("unknown") or {}
    if unknown:
        ranked = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
        found.append(Reasons("ops without a rule", [(f"{times} ×", str(op), "") for op, times in ranked]))
    return found
