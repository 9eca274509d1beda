"""Search state: what an interrupted search has measured, kept in the cache until the run is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pfpcli import processes
from pfpcli.cache_folder import cache_folder
from pfpcli.jobs import cache
from pfpcli.jobs.steps.network import Network, Prepared
from pfpcli.records.searched import Fall, SearchedPoint

#: Settings that change no network.
_NO_MATTER = ("out", "cache")


@dataclass
class Try:
    """A network that was tried; `network` is None where it was tried before an interrupt, or there is none."""

    point: SearchedPoint
    fall: Fall | None
    network: Network | None = None


class State:
    """What an interrupted search has measured, in a file.

    Args:
        ready: what the networks are made of.
    """

    def __init__(self, ready: Prepared) -> None:
        settings = ready.settings
        told = {name: value for name, value in settings.recorded().items() if name not in _NO_MATTER}
        file = None if settings.metric is None else Path(settings.metric.rpartition(":")[0])
        metric = "" if file is None else file.read_text("utf-8", "replace")
        key = cache.key_of_job(ready.groups.labelled.graph, ready.division, told, metric)
        self.path = cache_folder() / f"{key}.search"
        self._is_used = settings.cache

    def load(self) -> dict[float, Try]:
        """Return keep ratio -> what was measured; a file that cannot be read counts as missing."""
        if not self._is_used:
            return {}
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=list[tuple[SearchedPoint, Fall | None]])
        except (OSError, msgspec.MsgspecError):
            return {}
        return {point.keep: Try(point, fall) for point, fall in found}

    def save(self, tried: Sequence[Try]) -> None:
        """Write what was measured, if the cache folder can be written."""
        if self._is_used and not processes.rank():
            with suppress(OSError):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
                draft.write_bytes(msgspec.json.encode([(each.point, each.fall) for each in tried]))
                draft.replace(self.path)

    def forget(self) -> None:
        """Remove the file of a search that has ended."""
        with suppress(OSError):
            self.path.unlink()
