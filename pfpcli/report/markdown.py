"""The report on a run as Markdown, for a comment on a pull request: verdict, figures, checks, and the layers folded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pfpcli.records.runs import AnyRun, Run
from pfpcli.report import numbers, parts, precision, robustness, run_groups
from pfpcli.report.kinds import KINDS
from pfpcli.report.page import spell
from pfpcli.report.unlucky_widths import remark

#: What Markdown or HTML would take for its own; @ and # would name people and issues.
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|@~$&])")
#: No name of a model is shortened.
_WIDE = 100_000


def render(run: AnyRun) -> str:
    """Return the report on a run as Markdown.

    **PASS** model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold

    | | before | after | change | |
    |---|--:|--:|--:|---|
    | parameters | 147.4 k | 59.2 k | −59.9 % | |
    """
    kind = KINDS[type(run)]
    word, _, sentence = kind.verdict(run, _WIDE).partition("  ")
    heading, *figures = kind.figures(run)
    lines = [f"**{word}** {plain(sentence)}", ""]
    lines += [plain(run.advice), ""] if run.advice else []
    lines += _table((*heading[:4], ""), figures, "lrrrl")
    if isinstance(run, Run) and precision.rows(run):
        head, *files = precision.rows(run)
        lines += ["", *_table(head, files, "lrrrrrl")]
    lines += ["", *(f"- {plain(text)}" for text in _remarks(run))]
    if isinstance(run, Run):
        lines += ["", *_layers(run)]
    return "\n".join([*lines, ""])


def plain(text: str) -> str:
    """Return a text as Markdown that shows it as it is, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(spell(text, unicode=True).split()))


def _remarks(run: AnyRun) -> Iterator[str]:
    """Yield the checks, what was done, what was not pruned, and the warnings."""
    for yes, no, found, bound in parts.differences(run):
        holds = bound is None or found <= bound
        limit = "" if bound is None else f" (at most {numbers.error(bound)})"
        yield f"{yes if holds else f'FAILED: {no}'}: {numbers.error(found)}{limit}"
    for lead, text in KINDS[type(run)].notes(run):
        yield f"{lead}: {text}" if lead else text
    if isinstance(run, Run):
        frozen = run_groups.frozen(run.groups)
        if frozen:
            yield f"not pruned: {', '.join(frozen)}"
        yield from precision.remarks(run, everything=False)
        if run.robustness is not None:
            yield f"{robustness.conditions(run.robustness)}: {robustness.sentence(run.robustness)}"
    if run.verification.model_pt != "ok":
        yield f"model.pt: {parts.model_pt(run)}"
    for warning in run.warnings:
        yield f"warning: {warning}"


def _layers(run: Run) -> list[str]:
    """Return the layers that changed, folded."""
    changed = [layer for layer in run.layers if layer.params[0] != layer.params[1] or layer.macs[0] != layer.macs[1]]
    if not changed:
        return []
    rows = [
        (
            layer.name,
            layer.op,
            _arrow(layer.channels_in, str),
            _arrow(layer.channels_out, str),
            _arrow(layer.params, numbers.count),
            _arrow(layer.macs, numbers.count),
            remark(layer),
        )
        for layer in changed
    ]
    table = _table(("layer", "op", "in", "out", "parameters", "MACs", ""), rows, "llrrrrl")
    summary = f"{len(changed)} of {parts.plural(len(run.layers), 'layer')} changed"
    return [f"<details><summary>{summary}</summary>", "", *table, "", "</details>"]


def _arrow(pair: tuple[int, int], spelled: numbers.Spelling) -> str:
    return " → ".join(dict.fromkeys(map(spelled, pair)))


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return a table; align: "l" or "r" per column."""
    rule = "|".join("--:" if side == "r" else "---" for side in align)
    head, *body = (f"| {' | '.join(map(plain, row))} |" for row in (heading, *rows))
    return [head, f"|{rule}|", *body]
