"""Step store: what the finished steps of a run came to, in the cache until the run is written.

Each step has a key of everything that it depends on, so a step is only taken from the cache if it would come to the
same. An interrupt, a crash and a kill leave the steps that have finished. The cache is the one of `cache`, and the
folder that of `pfpcli.records.started`. A step that is damaged, renamed, or not written by this user alone is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch

from pfpcli import processes
from pfpcli.cache_folder import read_sealed, write_sealed
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.images.folder import Tally
from pfpcli.jobs import cache
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.progress import Console
from pfpcli.records.started import OPTIONS, forget
from pfpcli.report.parts import plural

_T = TypeVar("_T")

#: The file that says what the kept steps were made of.
_MADE_OF = "made-of"


class StepStore:
    """The finished steps of a run.

    Args:
        folder: of the run in the cache, see `started.state_folder`.
        key: of the network that came in and of the images, see `cache.key_of_job`.
        tallies: of the broken images; what a step has added to them is kept with it.
        is_used: whether steps are read and kept; the state of interrupted training is, whatever this says.

    Attributes:
        files: those of the steps so far.
    """

    def __init__(self, folder: Path, key: str, tallies: Sequence[Tally] = (), *, is_used: bool = True) -> None:
        self._folder, self._key, self._tallies, self._is_used = folder, key, tallies, is_used
        self.files: list[Path] = []

    def greet(self, made_of: dict[str, str], console: Console) -> None:
        """Say what an interrupted run has left, and whether what it was made of has changed since.

        Args:
            made_of: name of what the run is made of, for people -> its hash.
            console: shows a step, if something is left.
        """
        before, is_left = self._load(self._folder / _MADE_OF, dict[str, str]), processes.of_first(self._count)
        if before is not None and is_left:
            changed = [name for name, found in made_of.items() if before.get(name) != found]
            with console.step("resume") as step:
                step.summary = f"goes on after an interrupt, {plural(is_left, 'step')} kept"
                if changed:
                    step.summary = f"begins anew, since it has changed: {', '.join(changed)}"
        self._store(self._folder / _MADE_OF, made_of)

    def path(self, name: str, *parts: object) -> Path:
        """Return the file of a step.

        Args:
            name: of the step.
            parts: everything that it depends on beside the network that came in and the images: networks, bytes, and
                plain values.
        """
        digest = hashlib.sha256(self._key.encode())
        for part in parts:
            digest.update(hashlib.sha256(_content(part)).digest())
        return self._folder / f"{name}-{digest.hexdigest()[:32]}"

    def load(self, path: Path, kind: type[_T]) -> _T | None:
        """Return what a step came to before an interrupt, or None; path: of the step."""
        return self._load(path, kind) if self._is_used else None

    def save(self, path: Path, value: object) -> None:
        """Keep what a step has come to, if the cache can be written; path: of the step."""
        if self._is_used:
            self._store(path, value)

    def value(self, make: Callable[[], _T], kind: Any, name: str, *parts: object) -> tuple[_T, bool]:
        """Return what a step comes to, and whether that is from before an interrupt.

        Args:
            make: takes the step.
            kind: the type of what it comes to, as msgspec reads it.
            name: as for `path`.
            parts: as for `path`; the step may change them.
        """
        return self._value(make, kind, self.path(name, *parts)) if self._is_used else (make(), False)

    def value_and_files(
        self, write: Callable[[], _T], kind: Any, files: Iterable[Path], name: str, *parts: object
    ) -> tuple[_T, bool]:
        """Return what a step comes to that writes files, as `value`; files from before an interrupt are written again.

        The files are kept one by one: together they can be larger than anything else in memory.

        Args:
            write: takes the step, and writes some of the files.
            kind: as for `value`.
            files: those that it may write.
            name: as for `path`.
            parts: as for `path`.
        """
        if not self._is_used:
            return write(), False
        path = self.path(name, *parts)
        kept = {file.name: (file, path.with_name(f"{path.name}.{file.name}")) for file in files}
        self.files += [copy for _, copy in kept.values()]

        def written() -> tuple[_T, list[str]]:
            made = write()
            there = [name for name, (file, _) in kept.items() if file.exists()]
            for file, copy in (kept[name] for name in there):
                self._write(copy, file.read_bytes)
            return made, there

        (made, there), is_kept = self._value(written, tuple[kind, list[str]], path)
        for file, copy in (kept[name] for name in there if is_kept):
            content = self._read(copy)
            if content is None:
                return written()[0], False
            file.write_bytes(content)
        return made, is_kept

    def _value(self, make: Callable[[], _T], kind: Any, path: Path) -> tuple[_T, bool]:
        """Return what a step comes to, as `value`; path: of the step."""
        self.files.append(path)
        found = self._load(path, tuple[kind, list[tuple[dict[str, str], set[str]]]])
        if found is not None:
            made: _T = found[0]
            for tally, (broken, converted) in zip(self._tallies, found[1], strict=False):
                tally.broken.update(broken)
                tally.converted.update(converted)
            return made, True
        made = make()
        self._store(path, (made, [(tally.broken, tally.converted) for tally in self._tallies]))
        return made, False

    def drop(self, files: Iterable[Path]) -> None:
        """Remove steps that are of no use any more; files: some of `files`."""
        for path in {*files}:
            if not processes.rank():
                path.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove everything that is kept of the run: it is written."""
        if not processes.rank():
            forget(self._folder)

    def _count(self) -> int:
        names = {path.name for path in self._folder.glob("[!.]*")} - {OPTIONS, _MADE_OF}
        return sum("." not in name for name in names)  # the files of a step belong to it

    def _load(self, path: Path, kind: Any) -> Any:
        held = self._read(path)
        try:
            return None if held is None else msgspec.msgpack.decode(held, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _store(self, path: Path, value: object) -> None:
        self._write(path, lambda: msgspec.msgpack.encode(value))

    @staticmethod
    def _read(path: Path) -> bytes | None:
        """Return what was written; None if it is not there or damaged."""

        def content() -> bytes | None:
            try:
                return read_sealed(path)
            except OSError:
                return None

        return processes.of_first(content)

    @staticmethod
    def _write(path: Path, content: Callable[[], bytes]) -> None:
        """Write what is to be kept; the run goes on without it where that is impossible."""
        if processes.rank():
            return
        # a full disk, more than a file of msgpack holds, or a file's name that is no UTF-8
        with suppress(OSError, OverflowError, UnicodeEncodeError):
            write_sealed(path, content())


#: For jobs that keep no steps.
NOTHING = StepStore(Path(), "", is_used=False)


def open_store(
    folder: Path, model: LoadedModel, graph: Graph, division: Division, console: Console, *, is_used: bool = True
) -> StepStore:
    """Return the finished steps of a run, and say what an interrupted one has left.

    Args:
        folder: as for `StepStore`.
        model: the network that came in.
        graph: its graph.
        division: the images.
        console: shows a step, if something is left.
        is_used: as for `StepStore`.
    """
    images, judges = division.calibration.images, division.judges
    tallies = [each.tally for each in (images, judges)]
    store = StepStore(folder, cache.key_of_job(graph, division), tallies, is_used=is_used)
    made_of = {model.name: model.sha256, images.name: images.sha256, judges.name: judges.sha256}
    store.greet({**made_of, "pfp or torch": cache.program()}, console)
    return store


def _content(part: object) -> bytes:
    if isinstance(part, Graph):
        return cache.network(part)
    return part if isinstance(part, bytes) else json.dumps(part).encode()


def packed(tensors: dict[str, Any]) -> bytes:
    """Return tensors, and lists and numbers, as bytes that can be kept."""
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def unpacked(content: bytes) -> dict[str, Any]:
    """Return the tensors that `packed` has packed."""
    found: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return found
