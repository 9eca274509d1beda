"""Several processes that work as one: two of them, as torchrun starts them, come to what one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from commands import ENV, ROOT
from forked import CAN_FORK, PRUNING, Done, Server
from pfpcli import processes
from pfpcli.cli import main as cli
from pfpcli.images import calibration
from pfpcli.scoring.criteria import CRITERIA

RUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

#: Numbers in a batch: 32 images, so that criteria which look at a few images have several batches of them.
BATCH = 32 * 3 * 8 * 8
#: Commands, one after the other, in two processes with what torchrun tells each of them; each traces a network once.
FORKED = f"""
import socket
import shared_traces
from pfpcli.images import calibration
from pfpcli.jobs.steps import open as opening
from pfpcli.cli.main import run
calibration._BATCH = {BATCH}
opening.trace = shared_traces.tracing.trace
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = str(free.getsockname()[1])
other = os.fork()
rank = str(int(not other))
os.environ |= {{"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}}
codes = [run(line.split()) for line in args]
if other:
    codes.append(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
code = max(codes)
"""
#: Batches that two processes cannot share alike; and one batch.
MANY, FEW = ["--samples", "150"], ["--samples", "20"]
#: Both recoveries that take statistics, and no cache.
COMPRESS = ["compress", "net.pt", "--keep", "0.5", "--recover", "lsq,bn", "--no-cache"]
SPARSIFY = ["sparsify", "net.pt", "--calib", "many", "--keep", "0.5", "--json", "--out"]


@pytest.fixture(scope="module")
def pair() -> Server:
    """Runs commands in two processes that are forked."""
    if not CAN_FORK:
        pytest.skip("no fork here")
    return Server(ENV | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}, PRUNING, FORKED)


def by_torchrun(*args: str, cwd: Path) -> Done:
    """Run a command in two processes that torchrun starts."""
    done = subprocess.run([*RUN, *args], cwd=cwd, env=ENV, capture_output=True, encoding="utf-8", check=False)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, and two folders of arrays; one of them holds an array that cannot be read."""
    folder = tmp_path_factory.mktemp("processes")
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten()]
    torch.save(nn.Sequential(*layers, nn.Linear(6 * 16, 4)).eval(), folder / "net.pt")
    for name, count in (("many", 400), ("few", 40)):
        (folder / name).mkdir()
        x = torch.randn(count, 3, 8, 8)
        x[7, 0, 0, 0] = torch.nan
        np.save(folder / name / "all.npy", x.numpy())
    return folder


def scoring(criterion: str, calib: str) -> list[str]:
    samples = MANY if calib == "many" else FEW
    flags = ["--criterion", criterion, *samples, "--no-cache", "--json"]
    return ["score", "net.pt", "--calib", calib, *flags]


SCORING = [
    *(scoring(criterion, "many") for criterion in CRITERIA),
    *(scoring(criterion, "few") for criterion in ("pfp", "obs")),
]
COMPRESSING = [*COMPRESS, "--calib", "few", "--out", "few-two", "--json"]
SPARSIFYING = [*SPARSIFY, "sparse-two"]
TRAINING = ["compress", "net.pt", "--calib", "few", "--keep", "0.5", "--recover", "lsq,distill", "--epochs", "2"]
TRAINING += ["--no-cache", "--out", "trained", "--json"]
LINES = [*SCORING, COMPRESSING, SPARSIFYING, TRAINING]


@pytest.fixture(scope="module")
def several(home: Path, pair: Server) -> list[dict[str, Any]]:
    """What two processes come to."""
    done = pair.run(*map(" ".join, LINES), cwd=home)
    assert done.code == 0, done.err
    found, at, reader = [], 0, json.JSONDecoder()
    while done.out[at:].strip():
        value, end = reader.raw_decode(done.out[at:].lstrip())
        at += len(done.out[at:]) - len(done.out[at:].lstrip()) + end
        found.append(value)
    return found


def alone(line: list[str], home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """What one process comes to, in another folder where it writes one."""
    monkeypatch.chdir(home)
    capsys.readouterr()
    assert cli.run([word.replace("-two", "-one") for word in line] + ["--threads", "1"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("i", range(len(SCORING)))
def test_two_processes_score_as_one_does(
    i: int,
    home: Path,
    several: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(calibration, "_BATCH", BATCH)
    expected = alone(LINES[i], home, monkeypatch, capsys)
    assert several[i]["samples"] == expected["samples"]
    assert several[i]["calibration"] == expected["calibration"]
    for kind, value in (("groups", "score"), ("layers", "sensitivity")):
        for found, wanted in zip(several[i][kind], expected[kind], strict=True):
            np.testing.assert_allclose(found[value], wanted[value], rtol=1e-5, atol=1e-12)


def test_a_process_without_images_of_its_own_takes_part(
    home: Path, several: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "_BATCH", BATCH)
    found, expected = several[LINES.index(COMPRESSING)], alone(COMPRESSING, home, monkeypatch, capsys)
    assert_alike(home / "few-two", home / "few-one")
    assert_same_recovery(found, expected)
    assert found["quality"]["n"] == expected["quality"]["n"]
    assert [(row["name"], row["measured"]) for row in found["certificate"]["layers"]] == [
        (row["name"], pytest.approx(row["measured"], rel=1e-4)) for row in expected["certificate"]["layers"]
    ]


def test_two_processes_choose_the_weights_that_one_does(
    home: Path, several: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibration, "_BATCH", BATCH)
    found, expected = several[LINES.index(SPARSIFYING)], alone(SPARSIFYING, home, monkeypatch, capsys)
    assert found["quality"].pop("decided") == expected["quality"].pop("decided")
    for one, other in zip(found["quality"].pop("outputs"), expected["quality"].pop("outputs"), strict=True):
        assert one.pop("measures") == pytest.approx(other.pop("measures"))
        assert one.pop("after") == pytest.approx(other.pop("after"))
        assert one == other
    assert found["quality"] == pytest.approx(expected["quality"])
    assert [row["nonzeros"] for row in found["layers"]] == [row["nonzeros"] for row in expected["layers"]]
    assert_alike(home / "sparse-two", home / "sparse-one")


def assert_alike(found: Path, expected: Path) -> None:
    """The networks of two runs have the same tensors."""
    one, other = (torch.load(run / "model.pt", weights_only=False).state_dict() for run in (found, expected))
    assert list(one) == list(other)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5, msg=name)


def assert_same_recovery(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for one, other in zip(found["recovery"], expected["recovery"], strict=True):
        assert one["remarks"] == other["remarks"]
        numbers = [{name: value for name, value in each.items() if name != "remarks"} for each in (one, other)]
        assert numbers[0] == pytest.approx(numbers[1])


def test_one_of_them_talks_and_writes(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compress = [*COMPRESS, "--calib", "many", "--criterion", "l2", "--allocate", "uniform"]
    line = [*compress, "--out", "runs/two"]
    done = by_torchrun("-m", "pfpcli", *line, cwd=home)
    assert done.code == 0, done.err
    assert done.out.count("net.pt: ") == 1
    assert done.out.count("WORSE") == done.out.count("wrote runs/two/") == 1
    for step in ("load", "score", "recover    lsq", "recover    bn", "evaluate", "export", "measure"):
        assert done.err.count(f"  {step} ") == 1, step
    assert [run.name for run in (home / "runs").iterdir()] == ["two"]
    assert not (home / "pfp-runs").exists()
    expected = alone([*compress, "--json", "--out", "one"], home, monkeypatch, capsys)
    assert_alike(home / "runs/two", home / "one")
    assert_same_recovery(json.loads((home / "runs/two/run.json").read_text(encoding="utf-8")), expected)


def test_an_error_is_told_once_and_ends_all(home: Path, pair: Server) -> None:
    line = [*COMPRESS, "--calib", "many", "--keep", "0.001", "--out", "small"]
    done = pair.run(" ".join(line), cwd=home)
    assert done.code != 0
    assert done.err.count("error: ") == 1, done.err
    assert not any("small" in path.name for path in home.iterdir())


def test_one_process_gets_back_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    processes.start()
    x = torch.ones(2)
    assert (processes.rank(), processes.count()) == (0, 1)
    assert processes.total(x) is x
    assert processes.largest(x) is x
    assert processes.gathered("value") == ["value"]
    assert processes.of_first(lambda: "made") == "made"
    assert processes.is_first()
    processes.barrier()
    processes.finish()


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, pfpcli.cli; assert not {'torch', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_two_processes_train_one_network(home: Path, several: list[dict[str, Any]]) -> None:
    methods = several[LINES.index(TRAINING)]["recovery"]
    assert [each["method"] for each in methods] == ["lsq", "distill"]
    assert methods[1]["after"] >= methods[1]["before"]
    assert (home / "trained" / "model.onnx").exists()
