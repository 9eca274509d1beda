"""details.json: it reads back as it was written, it may be missing, and a wrong field is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from details import details
from pfpcli.errors import InputError
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read_details


def written(folder: Path, **changes: Any) -> Path:
    content = json.loads(details().json()) | changes
    (folder / FILES["details"]).write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_details_read_back_as_they_were_written_in_one_line(tmp_path: Path) -> None:
    text = details().json(compact=True)
    assert text.count("\n") == 1
    (tmp_path / FILES["details"]).write_text(text, encoding="utf-8")
    for path in (tmp_path, tmp_path / FILES["run"]):
        assert read_details(path) == details()


def test_a_run_may_have_no_details(tmp_path: Path) -> None:
    assert read_details(tmp_path) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"curves": "none"}, "details.json: curves: expected array, found str"),
        ({"schema_version": 99}, "details.json: schema version 99, this pfp reads 1"),
    ],
)
def test_details_that_cannot_be_read_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="details") as refused:
        read_details(written(tmp_path, **changes))
    assert message in str(refused.value)
    assert "remove details.json" in refused.value.hint


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILES["details"]).write_bytes(b"\xff")
    with pytest.raises(InputError, match="details"):
        read_details(tmp_path)
