"""docs/run.schema.json is what the records say, and takes what pfp writes."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from pages import script, text
from pfpcli.records.runs import AnyRun
from runs import failed, run, sparse_run, tuned_run, unlabelled, warned


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(text("docs/run.schema.json"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_schema_is_up_to_date() -> None:
    assert text("docs/run.schema.json") == script("make_schema").schema(), "stale: run `make reference`"


@pytest.mark.parametrize("made", [run(), unlabelled(), failed(), warned(), sparse_run(), tuned_run()])
def test_the_records_of_all_commands_are_valid(made: AnyRun, validator: Any) -> None:
    validator.validate(json.loads(made.json()))
    validator.validate(json.loads(made.json(folder="pfp-runs/model-keep0.40")))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "quantise"},
        {"kind": "sparsify"},
        {"schema_version": 2},
        {"quality": None},
        {"before": {"params": "many", "macs": 1, "bytes": 1}},
        {"layers": [{"name": "conv"}]},
    ],
    ids=str,
)
def test_a_record_of_another_kind_or_with_a_wrong_field_is_not_valid(change: dict[str, Any], validator: Any) -> None:
    assert not validator.is_valid(json.loads(run().json()) | change)


def test_a_record_without_a_field_that_all_have_is_not_valid(validator: Any) -> None:
    content = json.loads(run().json())
    del content["quality"]
    assert not validator.is_valid(content)


def test_every_field_is_described() -> None:
    definitions = json.loads(text("docs/run.schema.json"))["$defs"]
    assert all(each["description"].endswith(".") for each in definitions.values())
    silent = [
        f"{name}.{field}"
        for name in ("Run", "SparseRun", "TunedRun", "Quality", "Cost", "Verification")
        for field, value in definitions[name]["properties"].items()
        if "description" not in value
    ]
    assert not silent
