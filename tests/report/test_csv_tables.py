"""Tables of a run as CSV."""

from __future__ import annotations

import csv
import io

import pytest

from pfpcli.errors import InputError
from pfpcli.records.parts import LayerRow
from pfpcli.records.runs import AnyRun
from pfpcli.report.tables import TABLES
from runs import layers, run, sparse_run, tuned_run


def rows(made: AnyRun) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(TABLES["layers"](made))))


def test_a_row_for_each_layer_with_its_sizes_before_and_after() -> None:
    found = rows(run())
    assert [row["layer"] for row in found] == [layer.name for layer in layers()]
    assert found[1] == {
        "layer": "layer1.0.conv1",
        "op": "conv2d",
        "in_before": "16",
        "in_after": "16",
        "out_before": "16",
        "out_after": "10",
        "params_before": "2304",
        "params_after": "1440",
        "macs_before": "2359296",
        "macs_after": "1474560",
        "remark": "",
    }


def test_a_sparse_run_has_its_weights_and_errors() -> None:
    found = rows(sparse_run())
    assert (found[0]["nonzeros_before"], found[0]["nonzeros_after"], found[0]["error_bound"]) == (
        "82944",
        "13900",
        "24.7",
    )
    assert found[4]["error_bound"] == ""


def test_a_name_with_commas_quotes_and_lines_stays_one_cell() -> None:
    name = 'a,"b"\nc'
    assert rows(run(layers=[LayerRow(name, "conv2d", (1, 1), (1, 1), (1, 1), (1, 1))]))[0]["layer"] == name


def test_a_run_that_changed_no_widths_has_no_such_table() -> None:
    with pytest.raises(InputError, match="changes no widths") as refused:
        TABLES["layers"](tuned_run())
    assert "pfp compress" in refused.value.hint
