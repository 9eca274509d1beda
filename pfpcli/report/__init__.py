"""Reports: each format is a pure function of a run; none of them imports torch.

What a run shows depends on its kind: `terminal` is the report on a compression, `sparse` that on a removal of single
weights, `tuned` that on a fine-tuning. `inspection` renders what `pfp inspect` saw instead of a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfpcli.records.runs import Record, Run, SparseRun, TunedRun
from pfpcli.report import sparse, terminal, tuned

#: Kind of a run -> the module that reports on it.
_KINDS: dict[type[Record], Any] = {Run: terminal, SparseRun: sparse, TunedRun: tuned}


def render(run: Record, **how: Any) -> str:
    """The whole report; how: folder, width, everything, unicode as in `terminal.render`."""
    text: str = _KINDS[type(run)].render(run, **how)
    return text


def summary(run: Record, **how: Any) -> str:
    """What a command ends with; how: folder, width, unicode as in `terminal.summary`."""
    text: str = _KINDS[type(run)].summary(run, **how)
    return text


def verdict(run: Record) -> str:
    """Whether it worked, in one line."""
    text: str = _KINDS[type(run)].verdict(run)
    return text


#: Name of a format -> what renders a run in it.
REPORTS: dict[str, Callable[..., str]] = {"terminal": render}
