"""The verdict: a network that still works, one that is worse, and one that is worth nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from commands import SAMPLES, sample_images
from pfpcli.cli import main as cli
from pfpcli.jobs.steps.judge import FEWEST, LOSS, status
from pfpcli.records.parts import Quality

GOOD = Quality("accuracy", 0.9, 0.88, 0.93, 100, "held-out images", 0.1, 10, (10, 10))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "ok"),
        ({"after": 0.9 - LOSS + 0.001}, "ok"),
        ({"after": 0.9 - LOSS - 0.001}, "worse"),
        ({"after": 0.2}, "worse"),
        ({"after": 0.12}, "failed"),  # one of ten classes, give or take a standard deviation
        ({"after": 0.12, "n": FEWEST - 1}, "worse"),
        ({"after": 0.12, "before": 0.15}, "ok"),  # the original guesses, too
        ({"after": 0.3, "decided": (10, 1)}, "failed"),
        ({"after": 0.88, "decided": (1, 1)}, "ok"),
        ({"after": 0.02, "metric": "agreement", "before": 1.0, "classes": 1000}, "worse"),
        ({"after": 0.0, "metric": "agreement", "before": 1.0, "classes": 1000}, "failed"),
        ({"after": 0.0, "metric": "similarity", "before": 1.0, "classes": None, "decided": None}, "worse"),
    ],
)
def test_the_status_follows_the_quality(changes: dict[str, object], expected: str) -> None:
    found, why = status(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert found == expected
    assert bool(why) == (expected == "failed")


@pytest.mark.parametrize("command", ["compress", "sparsify"])
def test_a_network_that_is_worth_nothing_is_a_failure_and_its_files_say_so(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = ["--criterion", "random", "--allocate", "uniform", "--recover", "none"] if command == "compress" else []
    images = sample_images(tmp_path / "images", 16)
    args = [command, str(SAMPLES / "model.pt"), "--calib", str(images), "--keep", "0.03", *method]
    assert cli.run([*args, "--samples", "16", "--threads", "1", "--out", str(tmp_path / "run")]) == 1
    assert "FAILED  model.pt: one class for all " in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"failed-model.onnx", "failed-model.pt2", "failed-model.pt", "run.json"} <= names
    assert not any(name.startswith("model.") for name in names)
    record = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert record["status"] == "failed"
    assert record["artifacts"]["onnx"] == "failed-model.onnx"
    assert cli.run(["report", str(tmp_path / "run")]) == 0
    assert "failed-model.onnx" in capsys.readouterr().out
