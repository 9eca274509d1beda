"""Table: the measured times of operators on one machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec

from pfpcli.cache_folder import cache_folder, replace
from pfpcli.errors import InputError
from pfpcli.latency.conversion import FLOAT32, Conversion
from pfpcli.latency.operators import Operator
from pfpcli.latency.small_models import model_of, parts_of
from pfpcli.latency.stopwatch import PROVIDER, machine, time_operators
from pfpcli.limits import read_document

#: What a file raises that is no table.
_BROKEN = (ValueError, msgspec.MsgspecError, RecursionError)

#: Raised when operators are timed in another way; tables in the cache are of one way.
_VERSION = 2


class _Written(msgspec.Struct):
    machine: dict[str, Any]
    operators: dict[str, Annotated[float, msgspec.Meta(ge=0)]]
    network_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None


@dataclass
class Table:
    """Times of operators on one machine.

    Attributes:
        machine: what the times depend on, see `stopwatch.machine`.
        operators: key of an operator -> milliseconds.
        network_ms: milliseconds of a whole network on that machine; None where it was not timed.
        is_here: whether the machine is this one, so that more operators can be timed.
        conversion: to the precision in which they are timed.
    """

    machine: dict[str, Any]
    operators: dict[str, float] = field(default_factory=dict)
    network_ms: float | None = None
    is_here: bool = True
    conversion: Conversion = FLOAT32

    @classmethod
    def here(cls, threads: int | None, conversion: Conversion = FLOAT32) -> Table:
        """Return the table of this machine, with what was timed before.

        Args:
            threads: of onnxruntime; None for all cores.
            conversion: to the precision in which operators are timed.
        """
        table = cls(machine(threads, PROVIDER, conversion.precision), conversion=conversion)
        with contextlib.suppress(OSError, InputError, *_BROKEN):
            found = msgspec.json.decode(read_document(table._file), type=_Written)
            if found.machine == table.machine:
                table.operators = found.operators
        return table

    @classmethod
    def read(cls, path: Path, conversion: Conversion = FLOAT32) -> Table:
        """Read a table that the stopwatch has written on another machine.

        Args:
            path: the file.
            conversion: to the precision in which its operators have to be timed.

        Raises:
            InputError: the file is no such table.
        """
        hint = f"`{_packing(conversion)}` makes what writes one"
        try:
            found = msgspec.json.decode(read_document(path), type=_Written)
        except OSError as error:
            raise InputError(f"--latency-table {path.name}: cannot be read ({error.strerror})", hint) from error
        except _BROKEN as error:
            raise InputError(f"--latency-table {path.name}: expected a table of latencies ({error})", hint) from error
        if found.network_ms is None:
            raise InputError(f"--latency-table {path.name}: expected a table with network_ms", hint)
        precision = found.machine.get("precision", FLOAT32.precision)
        if precision != conversion.precision:
            raise InputError(
                f"--latency-table {path.name}: its times are of {precision}, expected {conversion.precision}", hint
            )
        return cls(found.machine, found.operators, found.network_ms, is_here=False, conversion=conversion)

    def complete(self, operators: Sequence[Operator], progress: Callable[[int, int], None]) -> int:
        """Time the operators that are missing.

        Args:
            operators: that the table has to have.
            progress: receives the number of operators that are done, and of all.

        Returns:
            The number of operators that were timed.

        Raises:
            InputError: operators are missing, and the table is of another machine.
        """
        missing = list({each.key: each for each in operators if each.key not in self.operators}.values())
        if missing and not self.is_here:
            raise InputError(
                f"--latency-table: {len(missing)} of {len(operators)} layers and widths of this network are not in it",
                f"make it of this network, with this version of pfp: `{_packing(self.conversion)}`",
            )
        done = 0
        for part in parts_of(missing):
            progress(done, len(missing))
            self._time([missing[i] for i in part])
            done += len(part)
        if missing:
            self._keep()
        return len(missing)

    def _time(self, operators: Sequence[Operator]) -> None:
        """Time some operators in one model; one that the runtime refuses takes no time."""
        try:
            model = model_of(operators, self.conversion).SerializeToString()
            found = time_operators(model, self.machine["threads"], self.machine["provider"])
        except OSError:  # the disk is full, which says nothing about the model
            raise
        except Exception:  # whatever onnxruntime raises about a model
            found = {}
            if len(operators) > 1:
                for each in operators:
                    self._time([each])
                return
        # an operator that the runtime has folded away takes no time either
        self.operators.update((each.key, found.get(number, 0.0)) for number, each in enumerate(operators))

    @property
    def _file(self) -> Path:
        told = json.dumps([_VERSION, self.machine], sort_keys=True)
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        return cache_folder() / f"latencies-{digest}.json"

    def _keep(self) -> None:
        """Write the table to the cache; a cache that cannot be written is none."""
        with contextlib.suppress(OSError):
            replace(self._file, json.dumps({"machine": self.machine, "operators": self.operators}).encode())


def _packing(conversion: Conversion) -> str:
    """The command that makes what writes a table."""
    flags = "" if conversion is FLOAT32 else f" --{conversion.precision}"
    return f"pfp latency MODEL{flags} --pack FILE.pyz"
