"""Reports: each format is a module with a pure `render(run) -> str`; none of them imports torch.

`inspection` renders what `pfp inspect` saw instead of a run.
"""

from __future__ import annotations

from collections.abc import Callable

from pfpcli.report import terminal

#: Name of a format -> what renders a run in it.
REPORTS: dict[str, Callable[..., str]] = {"terminal": terminal.render}
