"""Documents: dataclasses whose JSON has their fields in order, and the folder if it is asked for."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from details import details
from pfpcli.records.certified import Certified, LayerChecked
from pfpcli.records.comparison import Comparison, Point
from pfpcli.records.document import Document
from pfpcli.records.inspection import GroupSeen, Inspection, OutputSeen
from pfpcli.records.planned import PlannedNetwork
from pfpcli.records.ranking import GroupRanked, LayerRanked, Ranking
from runs import run, sparse_run, tuned_run

DOCUMENTS: list[Document] = [
    run(),
    sparse_run(),
    tuned_run(),
    details(),
    PlannedNetwork(
        {"name": "model.pt"},
        {"keep": 0.5, "of": "params"},
        {"keep": 0.5, "exact": True},
        run().before,
        run().after,
        {"criterion": "pfp"},
        {"folder": "imgs"},
        run().layers,
        run().groups,
        {"seed": 0},
        [],
    ),
    Certified("run", "model.pt", "imgs", 3, [LayerChecked("fc", 0.5, 0.1, 0.6)]),
    Comparison(
        {"name": "model.pt"},
        "macs",
        "accuracy",
        0.95,
        10,
        "held-out images",
        {"folder": "imgs"},
        {"seed": 0},
        [Point("pfp", 0.5, 0.5, 0.4, 0.9, None, 0.1, 1.2)],
        {"obs": "no images"},
        [],
    ),
    Ranking(
        {"name": "größe.pt"},
        "pfp",
        "sum",
        5,
        {"folder": "imgs"},
        [LayerRanked("fc", [0.1, 0.2])],
        [GroupRanked("conv", [0.3, 0.4])],
        [],
    ),
    Inspection(
        pfp_version="0.1.0",
        model={"name": "model.pt"},
        params=5,
        macs=6,
        open=("batch",),
        stops=(),
        ops={"aten.relu.default": 3},
        unknown={},
        prunable={"params": 0.5, "macs": 0.4},
        groups=[GroupSeen("conv", 4, ("conv", "bn"), ("fc",), 10, "", "")],
        outputs=[OutputSeen("fc", "logits", 1, "a layer")],
    ),
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: type(document).__name__)
def test_the_json_of_a_document_has_its_fields_in_order(document: Document) -> None:
    content = json.loads(document.json())
    assert list(content) == [field.name for field in fields(document)]
    assert content["schema_version"] == 1
    assert document.json() == json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def test_the_folder_is_the_last_key_if_it_is_given() -> None:
    content = json.loads(run().json(folder="pfp-runs/größe"))
    assert list(content)[-1] == "folder"
    assert content.pop("folder") == "pfp-runs/größe"
    assert content == json.loads(run().json())


def test_a_number_that_json_does_not_have_is_refused() -> None:
    made = run()
    made.quality.distance = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        made.json()
