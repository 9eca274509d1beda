"""Fine-tuning of a run with labels: what it does, what it refuses, and what an interrupt leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import pfpcli
from commands import QUICK, SAMPLES, hashes, leaks, run_onnx, sample_images
from pfpcli.cache_folder import cache_folder
from pfpcli.cli import main as cli
from pfpcli.jobs import finetune as finetune_job
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read
from pfpcli.records.runs import TunedRun
from pfpcli.recovery.training_batches import TrainingBatches
from pfpcli.report import render
from pfpcli.settings import FinetuneSettings

#: What the fixture trains.
TRAINED = ("--epochs", "6", "--teacher", "model.pt")


def finetune(*args: str) -> int:
    return cli.run(["finetune", "run", "--data", "images", "--device", "cpu", "--threads", "1", *args])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on the sample network, and images of which three of each class are enough for most tests."""
    home = tmp_path_factory.mktemp("finetune")
    sample_images(home / "images", 16)
    shutil.copy(SAMPLES / "model.pt", home)
    pfpcli.compress(home / "model.pt", home / "images", keep=0.5, out=home / "run", threads=1, **QUICK)
    return home


@pytest.fixture(scope="module")
def tuned(home: Path) -> Path:
    """That run, fine-tuned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert finetune(*TRAINED, "-q") == 0
    return home / "run-finetuned"


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In that folder; what is made there is taken away again."""
    monkeypatch.chdir(home)
    before = set(home.iterdir())
    yield home
    for made in set(home.iterdir()) - before:
        shutil.rmtree(made)


def test_the_network_is_more_accurate_afterwards_and_its_files_say_the_same(
    here: Path, tuned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tuned
    made = read(folder)
    assert isinstance(made, TunedRun)
    assert made.kind == "finetune"
    assert made.quality.metric == "accuracy"
    assert made.quality.after > made.quality.before
    assert made.training.has_helped
    assert (made.training.epochs, made.training.teacher, made.training.weight) == (6, "model.pt", 0.5)
    begun = read(here / "run")
    assert made.model == begun.model
    assert (made.run, made.before) == ("run", begun.before)
    assert (made.after.params, made.after.macs) == (begun.after.params, begun.after.macs)

    assert {file.name for file in folder.iterdir()} == set(FILES.values())
    assert hashes(folder)[FILES["plan"]] == hashes(here / "run")[FILES["plan"]]
    x = torch.randn(5, 3, 32, 32)
    module = torch.load(folder / FILES["pt"], weights_only=False)
    program = torch.export.load(folder / FILES["pt2"]).module(check_guards=False)
    before = torch.load(here / "run" / FILES["pt"], weights_only=False)
    with torch.no_grad():
        expected = module(x)
        assert torch.allclose(program(x), expected, atol=1e-4)
        assert torch.allclose(run_onnx(folder / FILES["onnx"], x), expected, atol=1e-3)
        assert not torch.allclose(before(x), expected, atol=1e-2)
    assert onnx.load(folder / FILES["onnx"]).producer_name
    assert leaks(folder, here) == []

    text = render(made, folder="run-finetuned")
    before_after = [f"{100 * value:.1f} %" for value in (made.quality.before, made.quality.after)]
    assert text.startswith(f"PASS  run: accuracy {' → '.join(before_after)}\n")
    assert "6 epochs of" in text
    assert "model.onnx" in text
    assert cli.run(["report", "run-finetuned"]) == 0
    assert "PASS  run: accuracy" in capsys.readouterr().out


def test_the_library_call_does_what_the_command_does(here: Path, tuned: Path) -> None:
    made = pfpcli.finetune("run", "images", teacher="model.pt", epochs=6, device="cpu", threads=1, out="called").record
    assert isinstance(made, TunedRun)
    assert made.training.accuracy == read(tuned).training.accuracy
    assert (here / "called" / FILES["onnx"]).is_file()


def test_what_helps_nothing_changes_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert finetune("--epochs", "1", "--lr", "1e6", "--out", "same", "-q") == 0
    made = read(here / "same")
    assert isinstance(made, TunedRun)
    assert not made.training.has_helped
    assert made.quality.after == made.quality.before
    assert made.quality.agreement == 1
    assert any("made nothing better" in warning for warning in made.warnings)
    states = [torch.load(here / run / FILES["pt"], weights_only=False).state_dict() for run in ("run", "same")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_label_i_is_the_i_th_sorted_folder(here: Path) -> None:
    seen: dict[str, Any] = {}
    original = finetune_job._loss

    def loss(tuned: Any, *rest: Any) -> Any:
        inner = original(tuned, *rest)

        def shown(x: Tensor, labels: np.ndarray, generator: torch.Generator) -> Tensor:
            seen["x"], seen["labels"] = x, labels
            raise RuntimeError("seen")

        return shown if inner else inner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_job, "_loss", loss)
        assert finetune("--epochs", "1") == 2
    before = torch.load("model.pt", weights_only=False).eval()
    with torch.no_grad():  # the original is right on nearly all of them
        right = before(seen["x"]).argmax(1).numpy() == seen["labels"]
    assert right.mean() > 0.8


def rearranged(here: Path, **folders: str) -> Path:
    made = here / "others"
    for name, source in folders.items():
        shutil.copytree(here / "images" / source, made / name)
    return made


def test_other_classes_than_outputs_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rearranged(here, a="disc", b="ring", c="star")
    before = sorted(here.iterdir())
    assert finetune("--data", "others") == 2
    err = capsys.readouterr().err
    assert "error: others: 3 classes, the network has 8 outputs\n" in err
    assert sorted(here.iterdir()) == before


def test_images_without_labels_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(here / "images" / "disc", here / "flat")
    assert finetune("--data", "flat") == 2
    assert "error: flat: no labels\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--data", "nowhere"], "error: nowhere: no such folder"),
        (["--eval", "images"], "--data images"),
        (["--teacher", "other.pt"], "error: other.pt: not the file that run was made of (model.pt)"),
        (["--teacher", "nothing.pt"], "error: nothing.pt: there is no such file"),
        (["--distill-weight", "0.5"], "error: --distill-weight 0.5: there is nothing to learn from but the labels"),
        (["--distill-weight", "1.5"], "error: --distill-weight 1.5: expected a number from 0 to 1"),
        (["--epochs", "0"], "error: --epochs 0: expected a whole number from 1 up"),
        (["--minutes", "0"], "error: --minutes 0: expected a number above 0"),
        (["--lr", "-1"], "error: --lr -1: expected a number above 0"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    args: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(here / "run", here / "spare")
    other = here / "spare" / "other.pt"
    torch.save(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten()), other)
    args = [str(other) if arg == "other.pt" else arg for arg in args]
    before = sorted(here.iterdir())
    assert finetune(*args) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "--calib" not in err
    assert sorted(here.iterdir()) == before


def test_only_runs_that_were_cut_are_taken(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(here / "run", here / "spare")
    assert cli.run(["finetune", "images", "--data", "images"]) == 2
    assert "error: images: no run here (no run.json)" in capsys.readouterr().err
    (here / "spare" / FILES["pt2"]).unlink()
    assert cli.run(["finetune", "spare", "--data", "images"]) == 2
    assert "error: model.pt2: there is no such file" in capsys.readouterr().err


def test_an_interrupt_leaves_no_folder_and_the_training_goes_on(
    here: Path, tuned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = TrainingBatches.epoch

    def interrupted(self: TrainingBatches, number: int, start: int = 0) -> Iterator[Any]:
        if number == 4:
            raise KeyboardInterrupt
        return epoch(self, number, start)

    before = sorted(here.iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "epoch", interrupted)
        assert finetune(*TRAINED, "--out", "broken") == 130
    err = capsys.readouterr().err
    assert "interrupted; no unfinished run was written" in err
    assert err.endswith("hint: go on with `pfp finetune --resume broken`\n")
    assert sorted(here.iterdir()) == before
    assert len(list(cache_folder().glob("unfinished/*/training-*"))) == 1

    begun: list[int] = []

    def noted(self: TrainingBatches, number: int, start: int = 0) -> Iterator[Any]:
        begun.append(number)
        return epoch(self, number, start)

    monkeypatch.setattr(TrainingBatches, "epoch", noted)
    assert cli.run(["finetune", "--resume", "broken", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed.pop("folder") == "broken"
    assert printed == json.loads((here / "broken" / FILES["run"]).read_text(encoding="utf-8"))
    assert begun == [0, 4, 5]  # the first batch says in which way the network is trained fastest
    assert not list(cache_folder().glob("unfinished/*/training-*"))
    folders = [tuned, here / "broken"]
    runs = [read(folder) for folder in folders]
    assert all(isinstance(run, TunedRun) for run in runs)
    assert runs[0].quality == runs[1].quality
    states = [torch.load(folder / FILES["pt"], weights_only=False).state_dict() for folder in folders]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_fine_tuned_run_can_be_trained_again(here: Path, tuned: Path) -> None:
    settings = FinetuneSettings(model=tuned / FILES["pt2"], calib=here / "images", run=tuned)
    assert finetune_job._open_run(settings).model["name"] == "model.pt"
    assert settings.folder.name == "run-finetuned-finetuned"
    assert settings.most_epochs == 30
