"""The page of a run: its sections in the order of a reader's questions."""

from __future__ import annotations

from typing import Any

from pfpcli.records.details import Details
from pfpcli.records.runs import AnyRun, Run
from pfpcli.report import run_groups
from pfpcli.report.html import behaviour, channels, layers, origin, skeleton, verdict
from pfpcli.report.html.views import Reasons
from pfpcli.report.kinds import KINDS
from pfpcli.report.page import spell


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
    page: str = _template().render(
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
    return page


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")


def _printable(value: Any) -> Any:
    """Return a text without characters that no file or reader may be given; parts of a page are left as they are."""
    return spell(value, unicode=True) if type(value) is str else value


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
