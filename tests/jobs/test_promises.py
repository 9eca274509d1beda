"""What every run promises: the same files from the same inputs, no network, and images that vanish are left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pfpcli
from commands import ENV, compress, draw, hashes, pfp, plain, plain_file
from forked import CAN_FORK, PRUNING, Server
from pfpcli.cli import main as cli
from pfpcli.errors import BudgetError, CalibrationError
from pfpcli.progress import Console, Step
from pfpcli.records.folders import FILES

#: Refuses every connection and every question for an address.
OFFLINE = """
import sys
def refuse(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"):
        raise SystemExit(f"uses the network: {event} {args}")
sys.addaudithook(refuse)
"""


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with a network and 40 images; it is the working directory of nothing."""
    torch.save(plain(), tmp_path / "model.pt")
    plain_file(tmp_path)
    draw(tmp_path / "imgs", 40, 16)
    return tmp_path


def test_two_processes_write_the_same_plan_and_the_same_weights(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["compress", "model.pt", "--calib", "imgs", "--keep", "0.5", "--recover", "lsq,distill", "--epochs", "2"]
    line += ["--threads", "1", "--out"]
    done = pfp(*line, "a", cwd=inputs, PFP_CACHE=str(inputs / "cache-a"))
    assert done.code == 0, done.err
    # this process hashes with another seed, and has a cache of its own, so it computes everything again
    monkeypatch.setenv("PFP_CACHE", str(inputs / "cache-b"))
    monkeypatch.chdir(inputs)
    assert cli.run([*line, "b"]) == 0
    a, b = (hashes(inputs / name) for name in ("a", "b"))
    assert a[FILES["onnx"]] == b[FILES["onnx"]]
    assert a[FILES["plan"]] == b[FILES["plan"]]
    plans = [json.loads((inputs / name / FILES["plan"]).read_text()) for name in ("a", "b")]
    assert plans[0] == plans[1]


@pytest.mark.skipif(not CAN_FORK, reason="no fork here")
def test_no_command_uses_the_network(inputs: Path) -> None:
    lines = (
        ["inspect", "model.pt", "--input-size", "3,16,16"],
        ["compress", "model.pt", "--calib", "imgs", "--keep", "0.5", "--out", "run"],
        ["certify", "run", "--calib", "imgs"],
        ["report", "run"],
    )
    server = Server(ENV, PRUNING, f"{OFFLINE}\nmain()")
    for line in lines:
        done = server.run(*line, cwd=inputs)
        assert done.code == 0, done.err


class Deleting(Console):
    """Deletes some images when a step begins."""

    def __init__(self, folder: Path, at: str, which: slice) -> None:
        super().__init__()
        self._folder, self._at, self._which = folder, at, which

    def begin(self, name: str) -> Step:
        if name == self._at:
            for file in sorted(self._folder.iterdir())[self._which]:
                file.unlink()
        return super().begin(name)


@pytest.mark.parametrize("step", ["trace", "score", "recover"])
def test_a_run_goes_on_without_images_that_were_deleted_meanwhile(
    step: str, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _deletes(monkeypatch, Deleting(inputs / "imgs", step, slice(None, None, 6)))
    record = compress(inputs / "model.onnx", inputs / "imgs", inputs / "run", keep=0.5)
    assert any("could not be read and were skipped" in warning for warning in record.warnings)


@pytest.mark.parametrize("step", ["trace", "score", "evaluate"])
def test_a_run_whose_images_were_all_deleted_names_the_folder(
    step: str, inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _deletes(monkeypatch, Deleting(inputs / "imgs", step, slice(None)))
    with pytest.raises(CalibrationError, match=r"^imgs: none of the .* images could be read .*No such file"):
        compress(inputs / "model.onnx", inputs / "imgs", inputs / "run", keep=0.5)
    assert not (inputs / "run").exists()


def _deletes(monkeypatch: pytest.MonkeyPatch, console: Console) -> None:
    """Give the next run a console of ours."""
    made: Any = lambda *_: console  # noqa: E731
    monkeypatch.setattr(pfpcli.api, "Console", made)


def test_a_budget_that_cannot_be_met_is_refused_before_the_first_image_is_scored(
    inputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Deleting(inputs / "imgs", "", slice(0))
    _deletes(monkeypatch, console)
    with pytest.raises(BudgetError, match=r"--keep 0.0001: not reachable; the smallest valid network keeps 0\.0"):
        compress(inputs / "model.onnx", inputs / "imgs", inputs / "run", keep=0.0001)
    assert set(console.timings) == {"load", "images", "trace"}
