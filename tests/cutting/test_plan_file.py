"""Plans that are written, read back and joined: two cuts are one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pfpcli.channels.cost import Predictor, count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph
from pfpcli.planning.plan import Budget, everything
from properties import random_drop
from traced import grouped
from zoo_blocks import NETS

#: A plan that keeps everything.
EMPTY = PlanFile(1.0, 1.0, "params", None, [], {}, {})


def cut_at_random(graph: Graph, seed: int) -> tuple[Groups, PlanFile, Graph]:
    """A random plan as its file has it, and the network that it leaves."""
    groups = group(label(graph))
    alive = groups.alive(random_drop(groups, seed))
    while any(alive[row].sum() < 2 <= len(row) for g in groups.prunable for row in g.rows if len(g.rows) > 1):
        # A convolution whose groups keep one channel each becomes a depthwise one, which can lose other channels.
        seed += 1
        alive = groups.alive(random_drop(groups, seed))
    planned = replace(everything(groups, Predictor(groups), Budget()), alive=alive)
    file = PlanFile.of_plan(planned, Slicing(groups.labelled, alive), readers(groups))
    return groups, file, cut(groups.labelled, alive).graph


@pytest.mark.parametrize("name", NETS)
def test_two_plans_that_follow_each_other_are_one_plan_of_the_original(name: str) -> None:
    groups, first, smaller = cut_at_random(grouped(name).labelled.graph, 0)
    _, second, smallest = cut_at_random(smaller, 10)
    names = {str(node.target) for node in groups.labelled.graph.nodes if node.op == "get_attr"}
    made = first.then(second.only(names)).plan(groups, readers(groups))
    at_once = cut(groups.labelled, made.alive).graph
    expected, found = smallest.module.state_dict(), at_once.module.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items() if key in names)
    assert count(at_once) == count(smallest) == made.after


@pytest.mark.parametrize("name", ["residual", "grouped", "attention"])
def test_a_plan_that_is_written_and_read_is_the_same_plan(name: str, tmp_path: Path) -> None:
    groups, file, smaller = cut_at_random(grouped(name).labelled.graph, 1)
    (tmp_path / "plan.json").write_text(file.json(), encoding="utf-8")
    read = PlanFile.read(tmp_path / "plan.json")
    assert read == file
    assert count(cut(groups.labelled, read.plan(groups, readers(groups)).alive).graph) == count(smaller)


def test_factors_of_plans_that_follow_each_other_are_multiplied() -> None:
    first = replace(EMPTY, scale={"a": [0.0, 2.0, 3.0], "b": [1.0]})
    second = replace(EMPTY, scale={"a": [5.0, 0.0], "c": [7.0]})
    assert first.then(second).scale == {"a": [0.0, 10.0, 0.0], "b": [1.0], "c": [7.0]}


def test_the_file_has_the_fraction_that_was_asked_for_and_the_one_that_was_reached() -> None:
    groups = grouped("plain")
    alive = groups.alive(random_drop(groups, 2))
    whole = everything(groups, Predictor(groups), Budget(0.5))
    planned = replace(whole, alive=alive, after=Predictor(groups).predict(alive))
    written = json.loads(PlanFile.of_plan(planned, Slicing(groups.labelled, alive), readers(groups)).json())
    assert written["schema_version"] == 2
    assert written["asked"] == 0.5
    assert written["achieved"] == planned.after.params / planned.before.params
    assert "keep" not in written


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"no.weight": {"0": [0]}}, r"plan\.json: names no\.weight, which this model does not have"),
        ({"0.0.weight": {"7": [0]}}, r"plan\.json: keeps indices along dimension 7 of 0\.0\.weight"),
        ({"0.0.weight": {"0": [999]}}, r"plan\.json: keeps indices along dimension 0 of 0\.0\.weight"),
    ],
)
def test_a_plan_of_another_network_is_refused(dims: dict[str, dict[str, list[int]]], message: str) -> None:
    groups = grouped("plain")
    assert "0.0.weight" in {str(node.target) for node in groups.labelled.graph.nodes}
    with pytest.raises(InputError, match=message):
        replace(EMPTY, tensors=dims).plan(groups, readers(groups))


def test_the_kept_positions_of_each_group_are_counted() -> None:
    groups, file, _ = cut_at_random(grouped("residual").labelled.graph, 3)
    made = file.plan(groups, readers(groups))
    for each, kept in zip(groups.groups, made.kept, strict=True):
        assert kept == np.count_nonzero(made.alive[each.rows[0]])


# --- reading -------------------------------------------------------------------------------------------------------


def test_a_file_of_the_first_version_is_read(tmp_path: Path) -> None:
    content = json.loads(replace(EMPTY, tensors={"a": {"0": [1]}}).json()) | {"schema_version": 1, "keep": 0.25}
    del content["asked"], content["achieved"]
    (tmp_path / "plan.json").write_text(json.dumps(content), encoding="utf-8")
    assert PlanFile.read(tmp_path / "plan.json") == replace(EMPTY, tensors={"a": {"0": [1]}}, asked=0.25, achieved=0.25)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (EMPTY.json().replace('"schema_version":2', '"schema_version":9'), "schema version 9, this pfp reads"),
        (EMPTY.json().replace('"tensors":{}', '"tensors":[]'), "not a plan"),
        (EMPTY.json().replace('"of":"params",', ""), "not a plan"),
        ("[1, 2]", "not a plan"),
        ("{", "not a plan"),
        ("{}", "not a plan"),
        ('{"schema_version": 1}', "not a plan"),
        ("\xff", "not a plan"),
        ("[" * 100_000, "not a plan"),
    ],
)
def test_a_file_that_is_no_plan_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        PlanFile.read(tmp_path / "plan.json")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        PlanFile.read(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("tensor", "dim", "kept"),
    [("0.0.weight", "0", [0, 0, 1]), ("0.0.weight", "0", [-1]), ("0.0.weight", "0", [True, False]),
     ("0.0.weight", "0", [[0], [1]]), ("0.0.weight", "2", [0]), ("0.0.weight", "0", [2**70])],
)  # fmt: skip
def test_indices_that_are_none_are_refused(tensor: str, dim: str, kept: list[object]) -> None:
    groups = grouped("plain")
    with pytest.raises(InputError, match=rf"plan\.json: keeps indices along dimension {dim} of {tensor} that"):
        replace(EMPTY, tensors={tensor: {dim: kept}}).plan(groups, readers(groups))


def test_tensors_that_keep_different_channels_of_one_unit_are_refused() -> None:
    groups = grouped("plain")
    with pytest.raises(InputError, match="that do not fit those of the other tensors"):
        replace(EMPTY, tensors={"0.0.weight": {"0": [0, 1]}, "1.0.weight": {"1": [1, 2]}}).plan(groups, readers(groups))


def test_a_shape_of_a_tensor_that_the_network_lacks_is_refused() -> None:
    groups = grouped("plain")
    with pytest.raises(InputError, match=r"names no\.weight, which this model does not have"):
        replace(EMPTY, shapes={"no.weight": [1]}).plan(groups, readers(groups))


@pytest.mark.parametrize(
    "wrong",
    [{"of": "x"}, {"asked": 0.0}, {"asked": 1e300}, {"achieved": -1.0}, {"epsilon": 0.0}, {"scale": {"a": [1e300]}}],
)
def test_numbers_that_no_plan_has_are_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(replace(EMPTY, **wrong).json(), encoding="utf-8")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"plan\.json: not a plan \(.*{next(iter(wrong))}"):
        PlanFile.read(tmp_path / "plan.json")
