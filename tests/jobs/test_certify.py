"""`pfp certify`: the errors of a run's layers, measured on other images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.cli import main as cli
from pfpcli.records.reading import read


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder beside its model and two folders of images."""
    home = tmp_path_factory.mktemp("certify")
    torch.manual_seed(0)
    torch.save(
        nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        home / "net.pt",
    )
    for folder, count, spread in (("images", 12, 1.0), ("other", 5, 1.0)):
        (home / folder).mkdir()
        for i in range(count):
            np.save(home / folder / f"{i}.npy", spread * torch.randn(3, 10, 10).numpy())
    args = [
        "compress",
        str(home / "net.pt"),
        "--calib",
        str(home / "images"),
        "--keep",
        "0.5",
        "--out",
        str(home / "run"),
    ]
    assert cli.run(args) == 0
    return home / "run"


def test_certify_measures_every_layer_on_other_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["certify", str(run), str(run.parent / "net.pt"), "--calib", str(run.parent / "other")]
    assert cli.run([*args, "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    recorded = read(run).certificate.layers
    assert [row["name"] for row in found["layers"]] == [row.name for row in recorded]
    assert (found["images"], found["folder"], found["model"], found["run"]) == (5, "other", "net.pt", "run")
    assert all(row["here"] > 0 for row in found["layers"])
    code = cli.run(args)
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("FAILED  " if code else "PASS  ")


def test_on_the_run_s_own_images_certify_finds_what_the_run_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["certify", str(run), str(run.parent / "net.pt"), "--calib", str(run.parent / "images"), "--json"]
    cli.run(args)
    found = json.loads(capsys.readouterr().out)
    for row in found["layers"]:
        assert row["here"] >= row["measured"] * (1 - 1e-4)


def test_certify_refuses_another_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), run.parent / "other.pt")
    assert cli.run(["certify", str(run), str(run.parent / "other.pt"), "--calib", str(run.parent / "other")]) == 2
    assert "error: other.pt: not the file that run was made of (net.pt)" in capsys.readouterr().err


def test_certify_looks_for_the_model_by_its_name(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["certify", str(run), "--calib", str(run.parent / "other")]) == 2
    assert "error: run: made of net.pt, which is not in this folder" in capsys.readouterr().err
    monkeypatch.chdir(run.parent)
    assert cli.run(["certify", str(run), "--calib", str(run.parent / "other")]) in (0, 1)
