"""Times in 8 bits: small models and whole networks that take the time of their int8 files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pfpcli.channels.cost import Predictor
from pfpcli.errors import InputError
from pfpcli.exporting import export
from pfpcli.exporting.in_8_bits import INT8, in_8_bits
from pfpcli.exporting.program import program_of
from pfpcli.latency import stopwatch
from pfpcli.latency.operators import Operator
from pfpcli.latency.pack import write_pack
from pfpcli.latency.prediction import grids_of
from pfpcli.latency.small_models import model_of, parts_of
from pfpcli.latency.stopwatch import PROVIDER, time_operators
from pfpcli.latency.table import Table
from traced import grouped

MAP, KERNEL = (1, 16, 8, 8), (16, 16, 3, 3)
CONV = (("stride", (1, 1)), ("padding", (1, 1)))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each model twice: the times do not matter here."""
    for name in ("WARM_UP", "MOST_RUNS", "FEWEST_RUNS"):
        monkeypatch.setattr(stopwatch, name, 1)


def kernels(model: onnx.ModelProto) -> dict[str, set[str]]:
    """What the runtime computes for each operator: prefix of its nodes -> kernels."""
    found: dict[str, set[str]] = {}
    for event in stopwatch._events(model.SerializeToString(), 1, PROVIDER, without=stopwatch.MERGING):
        if event.get("cat") == "Node":
            found.setdefault(event["name"][:2], set()).add(event["args"]["op_name"])
    return found


def test_convolutions_and_linear_layers_are_timed_in_8_bits_each_by_itself() -> None:
    operators = [Operator("conv2d", (MAP, KERNEL), 1, MAP, CONV, then) for then in (("relu",), ("add", "relu"), ())]
    operators.append(Operator("linear", ((1, 64), (10, 64)), 1, (1, 10)))
    found = kernels(model_of(operators, INT8))
    assert all("QLinearConv" in found[f"{i}/"] for i in range(3))
    assert found["3/"] == {"QGemm"}
    assert "Conv" not in set().union(*found.values())
    assert "Relu" not in found["0/"]  # computed with the convolution


def test_a_result_is_not_converted_to_floats_for_the_table_alone() -> None:
    found = kernels(model_of([Operator("conv2d", (MAP, KERNEL), 1, MAP, CONV)], INT8))
    assert found["0/"] == {"QLinearConv"}


@pytest.mark.parametrize("net", ["residual", "depthwise", "se_gate", "attention", "flatten_linear"])
def test_every_layer_runs_in_8_bits_at_every_width(net: str) -> None:
    groups = grouped(net)
    grids, _ = grids_of(groups, Predictor(groups))
    operators = list({each.key: each for grid in grids for each in grid.operators}.values())
    for part in parts_of(operators):
        some = [operators[i] for i in part]
        found = time_operators(model_of(some, INT8).SerializeToString(), 1, PROVIDER)
        layers = {i for i, each in enumerate(some) if each.stored}
        assert layers <= set(found)


def test_small_models_stay_small() -> None:
    wide = Operator("conv2d", ((1, 512, 8, 8), (512, 512, 3, 3)), 1, (1, 512, 8, 8), CONV)
    model = model_of([wide], INT8)
    assert model.ByteSize() < 10_000
    assert "QLinearConv" in kernels(model)["0/"]


def test_a_network_keeps_its_weights_and_its_names(tmp_path: Path) -> None:
    whole = saved("plain", tmp_path)
    found = in_8_bits(whole)
    assert [each.name for each in found.graph.input] == [each.name for each in whole.graph.input]
    assert [each.name for each in found.graph.output] == [each.name for each in whole.graph.output]
    weights = [each for each in found.graph.initializer if each.data_type == onnx.TensorProto.INT8 and each.dims]
    assert any(len(np.unique(numpy_helper.to_array(each))) > 10 for each in weights)


def saved(net: str, folder: Path) -> onnx.ModelProto:
    graph = grouped(net).labelled.graph
    export.save_onnx(program_of(graph), graph, export.names(graph), folder / "whole.onnx", list(graph.example))
    return onnx.load(folder / "whole.onnx")


def test_times_of_both_precisions_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PFP_CACHE", str(tmp_path))
    operators = [Operator("conv2d", (MAP, KERNEL), 1, MAP, CONV)]
    assert Table.here(1).complete(operators, lambda done, of: None) == 1
    assert Table.here(1, INT8).complete(operators, lambda done, of: None) == 1
    assert Table.here(1, INT8).complete(operators, lambda done, of: None) == 0
    assert Table.here(1, INT8).machine["precision"] == "int8"
    assert "precision" not in Table.here(1).machine


def test_a_pack_times_in_8_bits_and_its_table_is_of_8_bits(tmp_path: Path) -> None:
    with (tmp_path / "pack.pyz").open("wb") as pack:
        operators = [Operator("conv2d", (MAP, KERNEL), 1, MAP, CONV)]
        write_pack(pack, operators, in_8_bits(saved("plain", tmp_path)), (1, 3, 8, 8), INT8)
    line = [sys.executable, "pack.pyz", "table.json", "--threads", "1"]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    table = Table.read(tmp_path / "table.json", INT8)
    assert table.machine["precision"] == "int8"
    assert table.complete(operators, lambda done, of: None) == 0
    with pytest.raises(InputError, match=r"--latency-table table\.json: its times are of int8, expected float32"):
        Table.read(tmp_path / "table.json")


def test_a_table_of_floats_is_refused_for_8_bits(tmp_path: Path) -> None:
    table = {"machine": {}, "operators": {}, "network_ms": 1.0}
    (tmp_path / "t.json").write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(InputError, match="its times are of float32, expected int8") as error:
        Table.read(tmp_path / "t.json", INT8)
    assert error.value.hint == "`pfp latency MODEL --int8 --pack FILE.pyz` makes what writes one"
