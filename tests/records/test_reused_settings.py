"""Settings that a later command takes from the run it works on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pfpcli.errors import InputError
from pfpcli.records.reused_settings import network_of, reused_settings
from runs import run


@pytest.mark.parametrize(
    ("arch", "kept"), [("torchvision:resnet18", True), ("timm:resnet18", True), ("os:system", False)]
)
def test_only_an_architecture_of_torchvision_or_timm_is_taken_over(arch: str, kept: bool, tmp_path: Path) -> None:
    made = run()
    settings = {**made.settings, "arch": arch, "arch_kwargs": {"num_classes": 10}}
    (tmp_path / "run.json").write_text(replace(made, settings=settings).json(), encoding="utf-8")
    found = reused_settings({"run": tmp_path})
    assert found.get("arch") == (arch if kept else None)
    assert ("arch_kwargs" in found) == kept
    assert "arch" not in reused_settings({"run": tmp_path, "arch": "nets:build"})


def finished(folder: Path, **settings: object) -> Path:
    """Write a run with these settings."""
    folder.mkdir()
    made = run()
    made.settings |= settings
    (folder / "run.json").write_text(made.json(), encoding="utf-8")
    return folder


def test_settings_of_the_run_are_reused_unless_a_flag_gives_them(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", preprocess="unit", mean=[0.5, 0.5, 0.5], resize=40)
    found = reused_settings({"run": folder, "preprocess": None, "resize": 64})
    assert found["preprocess"] == "unit"
    assert found["mean"] == (0.5, 0.5, 0.5)
    assert "resize" not in found


def test_a_preprocessing_that_is_a_file_has_to_be_named(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", preprocess="mine.toml")
    with pytest.raises(InputError, match=r"its images went through mine\.toml") as refused:
        reused_settings({"run": folder})
    assert refused.value.hint == "name it: `--preprocess mine.toml`"
    assert "preprocess" not in reused_settings({"run": folder, "preprocess": "other.toml"})


@pytest.mark.parametrize("named", [".", "model.onnx"])
def test_the_network_of_a_run_lies_in_its_folder(named: str, tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    (folder / "model.onnx").touch()
    expected = {"run": folder, "model": folder / "model.pt2", "input_size": (3, 32, 32)}
    assert network_of(folder / named) == expected


def test_the_network_of_an_onnx_file_is_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    made = run()
    made.model["kind"] = "onnx"
    (folder / "run.json").write_text(made.json(), encoding="utf-8")
    assert network_of(folder)["model"] == folder / "model.onnx"


@pytest.mark.parametrize(("name", "value"), [("mean", ["a"]), ("resize", {}), ("output", 3), ("input_size", "3,8,8")])
def test_a_setting_of_another_type_is_named(name: str, value: object, tmp_path: Path) -> None:
    folder = finished(tmp_path / "run", **{name: value})
    with pytest.raises(InputError, match=rf"run: run\.json: settings\.{name}: Expected"):
        reused_settings({"run": folder})


def test_settings_that_the_record_lacks_are_not_reused(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    content = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    (folder / "run.json").write_text(json.dumps({**content, "settings": {}}), encoding="utf-8")
    assert reused_settings({"run": folder}) == {"origins": {}}
