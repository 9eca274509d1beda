"""Tables of a run as CSV, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

from pfpcli.errors import InputError
from pfpcli.records.runs import AnyRun, Run, TunedRun
from pfpcli.report.unlucky_widths import remark

_CUT = ("layer", "op", "in_before", "in_after", "out_before", "out_after", "params_before", "params_after")
_SPARSE = ("layer", "weights", "nonzeros_before", "nonzeros_after", "error_bound", "measured_error")


def layers(run: AnyRun) -> str:
    """Return the table of layers, a row for each layer in the order in which they run.

    Raises:
        InputError: the run has no such table.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    if isinstance(run, TunedRun):
        raise InputError(
            f"--csv layers: a run of `pfp {run.kind}` changes no widths, so it has no such table",
            "name the run of `pfp compress` that it trained",
        )
    if isinstance(run, Run):
        table.writerow((*_CUT, "macs_before", "macs_after", "remark"))
        for each in run.layers:
            pairs = (*each.channels_in, *each.channels_out, *each.params, *each.macs)
            table.writerow((each.name, each.op, *pairs, remark(each)))
    else:
        table.writerow(_SPARSE)
        for row in run.layers:
            bound = "" if row.bound is None else repr(row.bound)
            table.writerow((row.name, row.weights, *row.nonzeros, bound, repr(row.error)))
    return out.getvalue()


#: Name of a table -> the function that writes it.
TABLES: dict[str, Callable[[AnyRun], str]] = {"layers": layers}
