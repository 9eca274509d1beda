"""Reading run.json: records come back as they were written, and a wrong field is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfpcli.errors import InputError
from pfpcli.records.reading import read, read_details
from pfpcli.records.runs import AnyRun, Run, SparseRun, TunedRun
from runs import failed, run, sparse_run, tuned_run, unlabelled, warned

Change = Callable[[dict[str, Any]], object]


def written(folder: Path, content: Any) -> Path:
    """Write a record into a folder."""
    (folder / "run.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def changed(folder: Path, change: Change, made: AnyRun | None = None) -> Path:
    """Write a record after a change."""
    content = json.loads((made or run()).json())
    change(content)
    return written(folder, content)


@pytest.mark.parametrize(
    "made", [run(), unlabelled(), failed(), warned(), sparse_run(), tuned_run()], ids=lambda made: made.kind
)
def test_a_record_reads_back_as_it_was_written(made: AnyRun, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(made.json(), encoding="utf-8")
    for path in (tmp_path, tmp_path / "run.json"):
        assert read(path) == made
        assert read(path).json() == made.json()


def test_tuples_are_tuples_again(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(run().json(), encoding="utf-8")
    found = read(tmp_path)
    assert isinstance(found, Run)
    assert found.layers[1].channels_out == (16, 10)
    assert found.groups[0].readers == ("conv1",)


def test_a_record_without_newer_fields_is_read(tmp_path: Path) -> None:
    newer = {"kind", "recovery", "created"}
    found = read(changed(tmp_path, lambda content: [content.pop(name) for name in newer]))
    assert isinstance(found, Run)
    assert found.recovery == []
    content = json.loads(run().json())
    for name in ("file_bytes", "latency_ms", "latency_iqr_ms"):
        del content["before"][name]
    for name in ("total", "draws", "epsilon", "bound", "measured"):
        del content["certificate"]["layers"][0][name]
    found = read(written(tmp_path, content))
    assert isinstance(found, Run)
    assert found.before.latency_ms is None
    assert found.certificate.layers[0].bound is None


def test_keys_that_this_version_does_not_know_are_ignored(tmp_path: Path) -> None:
    found = read(changed(tmp_path, lambda content: content.update(folder="pfp-runs/x", later={"a": 1})))
    assert found.json() == run().json()


@pytest.mark.parametrize(("made", "kind"), [(sparse_run(), SparseRun), (tuned_run(), TunedRun)])
def test_the_kind_says_which_record_it_is(made: AnyRun, kind: type[AnyRun], tmp_path: Path) -> None:
    assert isinstance(read(changed(tmp_path, lambda content: None, made)), kind)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["before"].update(params="many"), "before.params: expected int, found str"),
        (lambda c: c["before"].update(params=1.5), "before.params: expected int, found float"),
        (lambda c: c["before"].pop("params"), "before: missing required field params"),
        (lambda c: c.pop("quality"), "missing required field quality"),
        (lambda c: c.update(after=[1]), "after: expected object, found array"),
        (lambda c: c.update(warnings=[None]), "warnings[0]: expected str, found null"),
        (lambda c: c["layers"][2].update(macs=[1]), "layers[2].macs: expected array of length 2, found 1"),
        (lambda c: c["layers"][2].update(macs=[1, "2"]), "layers[2].macs[1]: expected int, found str"),
    ],
)
def test_a_wrong_field_is_named(change: Change, message: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, change)
    with pytest.raises(InputError) as refused:
        read(folder / "run.json")
    assert str(refused.value) == f"run.json: {message}"
    assert refused.value.hint
    with pytest.raises(InputError) as refused:
        read(folder)
    assert str(refused.value) == f"{folder.name}: run.json: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a run record (Input data was truncated)"),
        ("{", "not a run record (Input data was truncated)"),
        ('{"kind": "\udcff"}', "not a run record ('utf-8' codec can't decode"),
        ("[" * 100_000, "not a run record (maximum recursion depth exceeded"),
        ("[]", "not a run record (it has no schema_version)"),
        ("{}", "not a run record (it has no schema_version)"),
        ('{"schema_version": 1, "kind": "other"}', "not a run record (kind other)"),
        ('{"schema_version": 99, "kind": "other"}', "schema version 99, this pfp reads version 1"),
    ],
    ids=["empty", "broken", "not-utf8", "too-deep", "array", "no-version", "unknown-kind", "later-version"],
)
def test_what_is_no_record_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as refused:
        read(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path.name}: {message}")
    assert refused.value.hint


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no run here \(no run.json\)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("model", "input_size", [3, -1, 8], r"model\.input_size\[1\]: expected int >= 1"),
        ("model", "input_size", None, r"model\.input_size: expected array, found null"),
        ("model", "sha256", 5, r"model\.sha256: expected str"),
        ("artifacts", "onnx", "../../net.onnx", r"artifacts\.onnx: expected str matching"),
    ],
)
def test_what_later_commands_use_of_a_record_is_checked(
    part: str, key: str, value: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        read(changed(tmp_path, lambda content: content[part].update({key: value})))
    with pytest.raises(InputError, match=f"{part}: missing required field {key}"):
        read(changed(tmp_path, lambda content: content[part].pop(key)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes")
@pytest.mark.parametrize("name", ["run.json", "details.json"])
def test_a_pipe_in_the_place_of_a_document_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(run().json(), encoding="utf-8")
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match=f"{name}: no file, but a folder, a device or a pipe"):
        (read if name == "run.json" else read_details)(tmp_path)


def test_a_document_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "run.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"run\.json: 1,099,511,627,776 bytes, expected at most"):
        read(tmp_path)
