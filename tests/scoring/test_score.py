"""`pfp score`, and scores that are found again."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onnx_files
from pfpcli.cli import main as cli
from pfpcli.jobs import cache
from pfpcli.records.reading import read

SHARED = Path(__file__).parents[2].parent / "shared"
ORACLE = SHARED / "oracle"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PFP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A model and a folder of arrays."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 4)]
    module = nn.Sequential(*layers).eval()
    torch.save(module, tmp_path / "net.pt")
    onnx_files.write(module, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    (tmp_path / "imgs").mkdir()
    for i in range(8):
        np.save(tmp_path / "imgs" / f"{i}.npy", torch.randn(3, 8, 8).numpy())
    return tmp_path


def score(home: Path, *flags: str) -> list[str]:
    return ["score", str(home / "net.pt"), "--calib", str(home / "imgs"), *flags]


def test_there_is_a_sensitivity_for_every_channel_a_layer_reads_and_a_score_for_every_channel_that_may_go(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(score(home, "--json", "--criterion", "pfp")) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(layer["name"], len(layer["sensitivity"])) for layer in found["layers"]] == [("0", 3), ("2", 6), ("5", 80)]
    assert [(group["name"], len(group["score"])) for group in found["groups"]] == [("0", 6), ("2", 5)]
    assert found["groups"][0]["score"] == found["layers"][1]["sensitivity"]
    assert (found["criterion"], found["reduce"], found["samples"]) == ("pfp", "sum", 4)


def test_csv_holds_the_same_numbers(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(score(home, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert cli.run(score(home, "--csv")) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    for kind, name, values in (
        *(("layer", layer["name"], layer["sensitivity"]) for layer in found["layers"]),
        *(("group", group["name"], group["score"]) for group in found["groups"]),
    ):
        assert [float(row["score"]) for row in rows if (row["kind"], row["name"]) == (kind, name)] == values


def test_two_formats_at_once_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(score(home, "--csv", "--json")) == 2
    assert capsys.readouterr().err == "error: --csv --json: two formats\n\nhint: give one of them\n"


def test_the_table_fits_the_terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(score(home)) == 0
    out = capsys.readouterr().out
    assert out.startswith("net.pt: criterion auto, sum over the kernel, 4 of 8 images in imgs\n")
    assert "  group  channels" in out
    assert "  layer  read" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.skipif(not ORACLE.is_dir(), reason="the shared folder is not here")
@pytest.mark.parametrize(("reduce", "suffix"), [("max", ""), ("sum", "_sum")])
def test_arrays_are_taken_as_they_are_and_give_the_sensitivities_of_the_authors(
    reduce: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "arrays").mkdir()
    for i, x in enumerate(np.load(ORACLE / "images_first32.npz")["x"]):
        np.save(tmp_path / "arrays" / f"{i:02}.npy", x)
    model = str(SHARED / "data/models/resnet20.pt2")
    flags = ["--preprocess", "none", "--samples", "32", "--reduce", reduce, "--json"]
    assert cli.run(["score", model, "--calib", str(tmp_path / "arrays"), *flags]) == 0
    found = {layer["name"]: layer["sensitivity"] for layer in json.loads(capsys.readouterr().out)["layers"]}
    expected = np.load(ORACLE / f"pfp_resnet20{suffix}.npz")
    assert set(found) == set(expected.files)
    for layer in expected.files:
        np.testing.assert_allclose(found[layer], expected[layer], rtol=2e-5, atol=0, err_msg=layer)


# --- the cache -------------------------------------------------------------------------------------------------------


def test_another_budget_does_not_score_again(home: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compress(keep: str, *flags: str) -> str:
        out = home / f"out{len(list(home.iterdir()))}"
        args = ["compress", str(home / "net.onnx"), "--calib", str(home / "imgs"), "--keep", keep, "--out", str(out)]
        assert cli.run([*args, *flags]) == 0
        plans.append((read(out).groups, (out / "plan.json").read_text(encoding="utf-8")))
        return next(line for line in capsys.readouterr().err.splitlines() if line.strip().startswith("score"))

    plans: list[object] = []
    assert "cached: " not in compress("0.5")
    assert len(list(own_cache.glob("*.npz"))) == 2  # scores and curves
    assert "cached: " in compress("0.5")
    assert "cached: " in compress("0.7")
    assert "cached: " not in compress("0.5", "--no-cache")
    assert "cached: " not in compress("0.5", "--reduce", "max")
    assert plans[0] == plans[1] == plans[3]


def test_another_model_or_image_is_scored(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def is_cached() -> bool:
        assert cli.run(score(home)) == 0
        return "cached: " in capsys.readouterr().err

    assert [is_cached(), is_cached()] == [False, True]
    for file in sorted((home / "imgs").iterdir()):
        np.save(file, np.load(file) + 0.01)
    assert [is_cached(), is_cached()] == [False, True]
    module = torch.load(home / "net.pt", weights_only=False)
    with torch.no_grad():
        module[2].weight[0, 0, 0, 0] += 0.1
    torch.save(module, home / "net.pt")
    assert [is_cached(), is_cached()] == [False, True]


def test_a_broken_file_in_the_cache_is_not_there(
    home: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(score(home, "--json")) == 0
    first = capsys.readouterr().out
    (file,) = own_cache.glob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    assert cli.run(score(home, "--json")) == 0
    assert capsys.readouterr().out == first


def test_a_cache_that_cannot_be_written_is_done_without(
    home: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own_cache.write_text("a file", encoding="utf-8")
    assert cli.run(score(home)) == 0
    assert "error" not in capsys.readouterr().err


def test_only_so_many_scores_are_kept(home: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_FILES", 2)
    for seed in range(4):
        assert cli.run(score(home, "--seed", str(seed))) == 0
    assert len(list(own_cache.iterdir())) == 2
