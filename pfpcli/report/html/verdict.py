"""The head of the page: the verdict, what was asked and achieved, and the checks as chips."""

from __future__ import annotations

from collections.abc import Iterator

from pfpcli.amounts import noun_of
from pfpcli.records.runs import AnyRun, Run, SparseRun, TunedRun
from pfpcli.report import falls, numbers, parts
from pfpcli.report import run as compress_run
from pfpcli.report.html.views import Chip
from pfpcli.report.kinds import KINDS

#: No name of a model is shortened on a page.
_WIDE = 100_000


def verdict(run: AnyRun) -> tuple[str, str]:
    """Return the word of the verdict and the sentence after it."""
    word, _, sentence = KINDS[type(run)].verdict(run, _WIDE).partition("  ")
    return word, sentence


def asked(run: AnyRun) -> str:
    """Return `asked 40.0 % of the parameters, kept 40.1 %`; "" for a run without a budget."""
    if isinstance(run, TunedRun):
        return ""
    if isinstance(run, SparseRun):
        wanted, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
        return f"asked {wanted} nonzero parameters, kept {kept}"
    wanted, kept = compress_run.budget(run)
    of = noun_of(run.requested)
    if run.search is not None:
        return (
            f"asked a fall of at most {falls.spelled(run.search.asked, run.search.told.unit)}, kept {kept} of the {of}"
        )
    if run.requested.get("epsilon") is not None:
        return f"asked {wanted} at most, kept {kept} of the {of}"
    return f"asked {wanted} of the {of}, kept {kept}"


def chips(run: AnyRun) -> list[Chip]:
    """Return the budget, the checks, the gates and the files that are missing, in this order."""
    return [*_budget(run), *_checks(run), *_gates(run), *_module(run)]


def _budget(run: AnyRun) -> Iterator[Chip]:
    if isinstance(run, TunedRun) or (isinstance(run, Run) and run.search is not None):
        return
    is_met = not isinstance(run, Run) or run.achieved["exact"]
    yield Chip("good" if is_met else "plain", "budget met" if is_met else "closest feasible budget", asked(run))


def _checks(run: AnyRun) -> Iterator[Chip]:
    for yes, no, found, bound in parts.differences(run):
        if bound is None:
            yield Chip("plain", yes, numbers.error(found))
            continue
        holds = found <= bound
        text = f"difference {numbers.error(found)}, at most {numbers.error(bound)}"
        yield Chip("good" if holds else "bad", yes if holds else no, text)


def _gates(run: AnyRun) -> Iterator[Chip]:
    if isinstance(run, TunedRun):
        helped = run.training.has_helped
        yield Chip("good" if helped else "plain", "training helped" if helped else "training did not help", "")
        return
    if run.failure:
        yield Chip("bad", "gate", run.failure)
    elif run.status == "worse":
        yield Chip("bad", "quality", parts.fall(run.quality))
    elif isinstance(run, Run) and run.search is not None:
        told, most = run.search.told, falls.signed(run.search.asked, run.search.told.unit)
        yield Chip("good", "gate", f"{told.metric} {falls.signed(told.fall, told.unit)}, asked {most} at most")
    elif run.settings.get("max_drop") is not None:
        name, before, after = ((isinstance(run, Run) and run.metric) or run.quality).name_before_after()
        yield Chip("good", "gate", f"{name} {before:.4g} → {after:.4g}, --max-drop {run.settings['max_drop']}")
    elif run.status == "ok":
        yield Chip("good", "quality", f"{parts.fall(run.quality)}, on {run.quality.n} {run.quality.source}")


def _module(run: AnyRun) -> Iterator[Chip]:
    if run.verification.model_pt != "ok":
        yield Chip("plain", "model.pt", parts.model_pt(run))
