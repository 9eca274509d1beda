"""The Python interface: modules in memory, what is returned, and what scripts are told."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import onnx_files
import pfpcli
from commands import Done, draw
from pfpcli.cli import main as cli
from pfpcli.errors import InputError
from zoo import conv


def head(channels: int) -> nn.Module:
    """A classifier of the two folders of images."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2))


class Net(nn.Module):
    """A network of a class of its own; with dropout, which counts only in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(3, 12), conv(12, 16), nn.Dropout(), head(16))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    for number, name in enumerate(("a", "b")):
        draw(folder / "imgs" / name, 8, seed=number)
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 12), conv(12, 16), head(16)).eval()
    torch.save(module, folder / "model.pt")
    onnx_files.write(module, torch.randn(2, 3, 8, 8), folder / "model.onnx")
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(here)
    return here


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net()


def compress(model: object, **settings: object) -> pfpcli.Result:
    fast = {"allocate": "uniform", "criterion": "l1", "samples": 8, "threads": 1}
    return pfpcli.compress(model, "imgs", keep=0.5, **{**fast, **settings})  # type: ignore[arg-type]


def test_a_module_in_memory_is_compressed_and_left_as_it_was(inside: Path) -> None:
    module = net().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    result = compress(module, input_size=(3, 8, 8))
    assert module.training
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert result.record.model["name"] == "Net"
    assert result.folder == Path("pfp-runs/Net-keep0.50")
    assert result.record.after.params < result.record.before.params


def test_a_call_says_nothing(inside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        compress(net(), input_size=(3, 8, 8), out="silent")
    assert capfd.readouterr() == ("", "")


def test_the_result_holds_the_smaller_module_and_the_onnx_file_of_the_same_network(inside: Path) -> None:
    result = compress(net(), example=torch.zeros(1, 3, 8, 8), out="twin")
    smaller, x = result.module(), torch.randn(4, 3, 8, 8)
    assert isinstance(smaller, Net)
    assert sum(p.numel() for p in smaller.parameters()) == result.record.after.params
    session = onnxruntime.InferenceSession(result.onnx)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(found, smaller(x).detach().numpy(), rtol=1e-3, atol=1e-4)


def test_a_module_whose_class_cannot_be_pickled_is_returned_and_model_pt_says_why(inside: Path) -> None:
    class Local(Net):
        pass

    result = compress(Local(), input_size=(3, 8, 8), out="local")
    assert "cannot be pickled" in result.record.verification.model_pt
    assert result.record.artifacts["pt"] is None
    assert type(result.module()) is Local


def test_the_result_of_a_file_without_a_module_is_its_exported_program(inside: Path) -> None:
    first = compress("model.pt", out="first")
    again = compress(first.pt2, out="again", input_size=(3, 8, 8))
    x = torch.randn(2, 3, 8, 8)
    assert again.module()(x).shape == first.module()(x).shape


def test_a_result_can_be_trained_and_certified_further(inside: Path) -> None:
    result = compress("model.pt", out="run", criterion="pfp")
    tuned = pfpcli.finetune(result, "imgs", epochs=1, threads=1)
    assert tuned.folder == Path("run-finetuned")
    assert tuned.onnx.is_file()
    found = pfpcli.certify(result, "model.pt", "imgs", threads=1)
    assert (found.run, found.images) == ("run", 16)


def test_a_network_is_inspected_and_scored_from_python(inside: Path) -> None:
    assert [group.size for group in pfpcli.inspect(net(), input_size=(3, 8, 8)).groups if not group.frozen_reason]
    ranking = pfpcli.score("model.pt", "imgs", criterion="l1", threads=1)
    assert [len(group.score) for group in ranking.groups] == [12, 16]


@pytest.mark.parametrize("example", [torch.zeros(3), 3.0])
def test_an_example_that_is_no_batch_is_refused(example: object, inside: Path) -> None:
    with pytest.raises(InputError, match="example: expected a batch of inputs"):
        compress(net(), example=example)


def test_criteria_are_compared_as_compress_allocates_by_distance(inside: Path) -> None:
    found = pfpcli.compare_criteria("model.pt", "imgs", criteria=["l1", "l2"], keeps=[0.5], threads=1, out="compared")
    assert found.folder == Path("compared")
    assert found.record.settings["allocate"] == "distance"
    result = compress("model.pt", keep_of="macs", allocate="distance", recover=(), out="as-compared")
    (point,) = (each for each in found.record.points if each.criterion == "l1")
    assert point.macs == result.record.after.macs / result.record.before.macs


# --- what a script is told -----------------------------------------------------------------------------------------


@pytest.fixture
def command(inside: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> Callable[..., Done]:
    def run(*args: str) -> Done:
        code = cli.run([*args, "--threads", "1"])
        return Done(code, *(stream.decode() for stream in capsysbinary.readouterr()))

    return run


FAST = ("--calib", "imgs", "--json")


@pytest.mark.parametrize(
    ("args", "file"),
    [
        (("compress", "model.onnx", *FAST, "--allocate", "uniform", "--criterion", "l1"), "run.json"),
        (("sparsify", "model.onnx", *FAST, "--criterion", "magnitude"), "run.json"),
        (("compare-criteria", "model.onnx", *FAST, "--criteria", "l1", "--allocate", "uniform"), "comparison.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_json_names_the_folder_as_it_can_be_opened_and_the_file_in_it_does_not(
    args: tuple[str, ...], file: str, command: Callable[..., Done]
) -> None:
    for out in ("typed/by-hand", None):
        done = command(*args, *(("--out", f"{out}-{args[0]}") if out else ()))
        assert done.code == 0, done.err
        printed = json.loads(done.out)
        folder = printed.pop("folder")
        assert folder == f"{out}-{args[0]}" if out else folder.startswith("pfp-runs" + os.sep)
        assert json.loads((Path(folder) / file).read_text(encoding="utf-8")) == printed
