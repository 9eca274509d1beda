"""A metric of the user, and the gate on how far it may fall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from commands import compress, draw, pfp, plain_file
from pfpcli.errors import InputError
from pfpcli.jobs.steps.gate import gated
from pfpcli.records.parts import DECIBELS, OutputQuality, Quality, UserMetric
from pfpcli.records.searched import Fall
from pfpcli.settings.max_drop import MaxDrop

#: A metric: the size of the file, negative; and functions that fail.
METRICS = """
import os
seen = []
def smallness(onnx_file, folder):
    assert os.path.isdir(folder), folder
    assert onnx_file.endswith(".onnx")
    return -os.path.getsize(onnx_file)
def largeness(onnx_file, folder):
    return os.path.getsize(onnx_file)
def broken(onnx_file, folder):
    raise KeyError("no boxes")
def nothing(onnx_file, folder):
    return float("nan")
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    plain_file(tmp_path)
    draw(tmp_path / "imgs", 16)
    (tmp_path / "metrics.py").write_text(METRICS, encoding="utf-8")
    return tmp_path


def run(inputs: Path, **settings: Any) -> Any:
    how = {"criterion": "l2", "allocate": "uniform", "recover": ("none",)[1:], **settings}
    return compress(inputs / "model.onnx", inputs / "imgs", inputs / "run", keep=0.5, **how)


def test_the_metric_of_the_user_is_in_the_record_and_in_the_report(inputs: Path) -> None:
    found = run(inputs, metric=f"{inputs / 'metrics.py'}:smallness")
    assert found.metric.name == "smallness"
    assert found.metric.before < found.metric.after < 0
    report = pfp("report", "run", cwd=inputs).out
    assert any(line.split()[0] == "smallness" for line in report.splitlines() if line.strip())


def test_a_metric_that_falls_too_far_fails_the_run(inputs: Path) -> None:
    args = ("compress", "model.onnx", "--calib", "imgs", "--keep", "0.5", "--criterion", "l2", "--allocate", "uniform")
    more = ("--recover", "none", "--metric", "metrics.py:largeness", "--max-drop", "1%", "--out", "run")
    done = pfp(*args, *more, cwd=inputs)
    assert done.code == 1
    assert "FAILED  model.onnx: largeness fell by" in done.out
    assert (inputs / "run" / "failed-model.onnx").exists()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("metrics.py", "expected FILE.py:FUNCTION"),
        ("other.py:f", "there is no file other.py"),
        ("metrics.py:bigness", "metrics.py has no function bigness"),
        ("metrics.py:broken", "fails \\(KeyError: 'no boxes'\\)"),
        ("metrics.py:nothing", "returned nan, expected a number"),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused(
    named: str, message: str, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inputs)
    with pytest.raises(InputError, match=message):
        run(inputs, metric=named)
    assert not (inputs / "run").exists()


QUALITY = Quality("agreement", 1.0, 0.9, 0.9, 100, "images", 0.1)


@pytest.mark.parametrize(
    ("verdict", "metric", "most", "expected"),
    [
        ("worse", None, None, "worse"),
        ("worse", None, 0.11, "ok"),
        ("ok", None, 0.05, "failed"),
        ("failed", None, 1.0, "failed"),
        ("worse", UserMetric("mAP", 0.5, 0.495), 0.01, "ok"),
        ("ok", UserMetric("mAP", 0.5, 0.48), 0.01, "failed"),
    ],
)
def test_the_gate_is_on_the_metric_of_the_user_or_on_the_quality(
    verdict: str, metric: UserMetric | None, most: float | None, expected: str
) -> None:
    limit = None if most is None else MaxDrop(most)
    found, why = gated((verdict, "x" if verdict == "failed" else ""), QUALITY, metric, limit)
    assert found == expected
    assert bool(why) == (expected == "failed")


@pytest.mark.parametrize(
    ("measures", "most", "expected"),
    [(dict(zip(DECIBELS, (31.0, 30.6), strict=True)), 0.5, "ok"),
     (dict(zip(DECIBELS, (31.0, 30.4), strict=True)), 0.5, "failed"),
     ({}, 0.5, "failed")],
)  # fmt: skip
def test_a_gate_in_decibels_is_on_the_psnr_to_the_targets(
    measures: dict[str, float], most: float, expected: str
) -> None:
    output = OutputQuality("y", "image", None, "", "ssim", "", 0.9, 0.7, measures)
    found = Quality("ssim", 0.9, 0.7, None, 100, "images", 0.1, outputs=[output])
    assert gated(("worse", ""), found, None, MaxDrop(most, "dB"))[0] == expected


@pytest.mark.parametrize(
    ("most", "low", "expected"), [(0.03, -0.01, "ok"), (0.01, -0.01, "worse"), (0.01, 0.015, "failed")]
)
def test_a_network_that_was_searched_is_judged_by_other_images_and_fails_only_if_they_are_sure(
    most: float, low: float, expected: str
) -> None:
    confirmed = Fall("accuracy", "pp", 0.9, 0.88, low, 0.05, 1000, "images")
    assert gated(("ok", ""), QUALITY, None, MaxDrop(most), confirmed)[0] == expected
