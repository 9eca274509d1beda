"""The table, and the prediction of a plan's latency."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from pfpcli.channels.cost import Predictor
from pfpcli.errors import InputError
from pfpcli.latency import stopwatch
from pfpcli.latency.operators import Operator
from pfpcli.latency.pack import write_pack
from pfpcli.latency.prediction import TimedPredictor, grids_of, widths_of
from pfpcli.latency.table import Table
from traced import grouped


class Counted(Table):
    """A table in which an operator takes as long as its numbers are many."""

    def complete(self, operators, progress):  # type: ignore[no-untyped-def]
        for each in operators:
            self.operators[each.key] = float(math.prod(each.shapes[-1]) + math.prod(each.made))
        return len(operators)


def predictor(net: str) -> TimedPredictor:
    return TimedPredictor(grouped(net), Counted(stopwatch.machine(1, stopwatch.PROVIDER)))


def narrowed(net: str, keep: float) -> list[int]:
    groups = grouped(net)
    dropped = [row[max(1, round(keep * len(row))) :] for each in groups.prunable for row in each.rows]
    return Predictor(groups).counts(groups.alive(np.concatenate([*dropped, np.zeros(0, np.int64)])))


@pytest.mark.parametrize("net", ["plain", "residual", "depthwise", "concat", "se_gate", "yolo"])
def test_narrower_networks_are_predicted_to_be_quicker(net: str) -> None:
    found = predictor(net)
    times = [found.at(narrowed(net, keep)).ms for keep in (1, 0.75, 0.5, 0.25)]
    assert times == sorted(times, reverse=True)
    assert times[-1] < times[0]


def test_the_time_of_a_whole_network_is_the_sum_of_its_operators() -> None:
    found = predictor("plain")
    whole = sum(found.table.operators[grid.operators[-1].key] for grid in grids_of(grouped("plain"), found)[0])
    assert found.at(narrowed("plain", 1)).ms == pytest.approx(whole)


def test_the_other_costs_are_those_of_the_plain_predictor() -> None:
    counts = narrowed("residual", 0.5)
    timed, plain = predictor("residual").at(counts), Predictor(grouped("residual")).at(counts)
    assert timed == plain
    assert math.isnan(plain.ms)
    assert timed.of("latency") == timed.ms > 0


@pytest.mark.parametrize(
    ("full", "widths"),
    [(3, [3]), (16, [4, 8, 12, 16]), (64, [8, 16, 24, 32, 48, 64]), (512, [64, 128, 192, 256, 384, 512])],
)
def test_widths_that_fill_the_blocks_of_the_runtime_are_timed(full: int, widths: list[int]) -> None:
    assert widths_of(full).tolist() == widths


def test_a_table_keeps_what_was_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PFP_CACHE", str(tmp_path))
    shape = (1, 8, 6, 6)
    operators = [Operator("relu", (shape,), 0, shape), Operator("sigmoid", (shape,), 0, shape)]
    assert Table.here(1).complete(operators, lambda done, of: None) == 2
    assert Table.here(1).complete(operators, lambda done, of: None) == 0
    assert Table.here(2).complete(operators, lambda done, of: None) == 2  # other threads, other times
    for file in tmp_path.glob("latencies-*.json"):
        file.write_text("broken", encoding="utf-8")
    assert not Table.here(1).operators


def test_an_operator_that_the_runtime_refuses_takes_no_time_and_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PFP_CACHE", str(tmp_path))
    shape, table = (1, 8, 6, 6), Table.here(1)
    good = Operator("relu", (shape,), 0, shape)
    bad = Operator("conv2d", (shape, (8, 5, 3, 3)), 1, shape)
    table.complete([good, bad], lambda done, of: None)
    assert table.operators[bad.key] == 0
    assert table.operators[good.key] > 0


def test_a_full_disk_is_an_error_and_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(file: object) -> object:
        return json.loads('[{"name": "cut o')

    monkeypatch.setenv("PFP_CACHE", str(tmp_path))
    monkeypatch.setattr(stopwatch.json, "load", cut_off)
    shape, table = (1, 8, 6, 6), Table.here(1)
    with pytest.raises(OSError, match="No space left"):
        table.complete([Operator("relu", (shape,), 0, shape)], lambda done, of: None)
    assert not table.operators
    assert not list(tmp_path.iterdir())


def test_a_pack_makes_the_table_on_a_machine_without_torch_and_onnx(tmp_path: Path) -> None:
    groups = grouped("plain")
    found = predictor("plain")
    network = tmp_path / "network.onnx"
    from pfpcli.exporting import export
    from pfpcli.exporting.program import program_of

    graph = groups.labelled.graph
    export.save_onnx(program_of(graph), graph, export.names(graph), network, list(graph.example))
    with (tmp_path / "pack.pyz").open("wb") as pack:
        write_pack(pack, found.operators, onnx.load(network), (1, 3, 8, 8))
    blocked = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; import runpy; sys.argv = sys.argv[1:]; "
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    arguments = [sys.executable, "-c", blocked + run, "pack.pyz", "table.json", "--threads", "1"]
    subprocess.run(arguments, cwd=tmp_path, check=True, capture_output=True)
    table = Table.read(tmp_path / "table.json")
    assert table.machine["threads"] == 1
    assert table.network_ms
    assert not table.is_here
    assert TimedPredictor(groups, table).timed == 0  # nothing is missing
    with pytest.raises(InputError, match="layers and widths of this network are not in it"):
        TimedPredictor(grouped("residual"), table)


_TABLES = (
    {"operators": {"a": "b"}}, {"operators": [], "network_ms": 1}, {"operators": {}},
    {"operators": {}, "network_ms": 0}, {"operators": {"a": -1}, "network_ms": 1},
    {"operators": {}, "network_ms": 10**400},
)  # fmt: skip


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 5000, *(json.dumps({"machine": {}, **t}) for t in _TABLES)])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=r"--latency-table t\.json: expected a table"):
        Table.read(tmp_path / "t.json")
    with pytest.raises(InputError, match="cannot be read"):
        Table.read(tmp_path / "none.json")
