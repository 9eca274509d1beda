"""`--robustness`: the quality of both networks on damaged images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from commands import compress, draw, pfp, plain_file
from pfpcli.images.corruptions import CONSTANTS
from pfpcli.records.reading import read
from pfpcli.records.runs import Run
from pfpcli.report.robustness import sentence


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network, images of two classes, imgs, and a run with damaged images."""
    folder = tmp_path_factory.mktemp("small")
    plain_file(folder)
    for number, name in enumerate(("ants", "bees")):
        draw(folder / "imgs" / name, 12, seed=number)
    compress(folder / "model.onnx", folder / "imgs", folder / "run", keep=0.4, robustness=True)
    return folder


def test_both_networks_are_measured_under_five_corruptions_at_five_strengths(small: Path) -> None:
    run = read(small / "run")
    assert isinstance(run, Run)
    found = run.robustness
    assert found is not None
    assert (found.metric, found.n, found.constants_of) == (run.quality.metric, run.quality.n, "CIFAR-10-C")
    assert (found.before, found.after) == (run.quality.before, run.quality.after)
    assert {each.corruption: tuple(each.constants) for each in found.damages} == CONSTANTS["CIFAR-10-C"]
    for each in found.damages:
        assert [len(row) for row in (each.before, each.after, each.margins)] == [5, 5, 5]
        assert all(0 <= value <= 1 for value in (*each.before, *each.after))


def test_the_same_command_damages_the_same_images_in_the_same_way(small: Path, tmp_path: Path) -> None:
    again = compress(small / "model.onnx", small / "imgs", tmp_path / "run", keep=0.4, robustness=True)
    first = read(small / "run")
    assert isinstance(first, Run)
    assert again.robustness == first.robustness


def test_a_network_that_loses_nothing_is_as_robust_as_the_original(small: Path, tmp_path: Path) -> None:
    run = compress(small / "model.onnx", small / "imgs", tmp_path / "run", keep=1, robustness=True)
    assert run.robustness is not None
    assert all(each.before == each.after for each in run.robustness.damages)
    assert sentence(run.robustness).startswith("The network is nowhere worse")


def test_arrays_are_refused_before_anything_is_scored(small: Path, tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", np.zeros((8, 3, 8, 8), np.float32))
    line = ["compress", str(small / "model.onnx"), "--calib", "arrays", "--robustness"]
    done = pfp(*line, cwd=tmp_path)
    assert done.code == 2
    assert "error: --robustness: arrays holds arrays; expected images" in done.err
    assert "  score" not in done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["arrays"]
