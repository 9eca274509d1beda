"""`pfp verify`: are these the same network, whatever their files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import pfpcli
from onnx_files import NODE, followed_by, save, selecting, write
from pfpcli.cli import main as cli
from pfpcli.models.load import load

RUN_AND_MASKED = "model.pt2", "masked original"


def net(width: int = 12, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, classes)).eval()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as a module, an ONNX file and a program, images, and runs with and without recovery."""
    home = tmp_path_factory.mktemp("verify")
    torch.save(net(), home / "net.pt")
    write(net(), torch.randn(2, 3, 10, 10), home / "net.onnx", ("n", "", "h", "w"))
    program = torch.export.export(net(), (torch.randn(2, 3, 10, 10),))
    torch.export.save(program, home / "two.pt2")
    (home / "images").mkdir()
    for i in range(12):
        np.save(home / "images" / f"{i}.npy", torch.randn(3, 10, 10).numpy())
    for out, recover in (("run", "lsq"), ("bare", "none")):
        settings: dict[str, Any] = {"task": "classify", "allocate": "uniform", "recover": recover, "threads": 1}
        pfpcli.compress(home / "net.pt", home / "images", keep=0.5, out=home / out, **settings)
    return home


def verify(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, dict[str, Any]]:
    """The exit code and the document of a command."""
    capsys.readouterr()
    code = cli.run(["verify", *map(str, args), "--json"])
    return code, json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The message of a command that is refused."""
    assert cli.run(["verify", *map(str, args)]) == 2
    return capsys.readouterr().err


def test_a_run_alone_compares_its_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, home / "run")
    assert (code, found["same"], found["n"]) == (0, True, 16)
    assert [(pair["first"], pair["second"]) for pair in found["pairs"]] == [
        ("model.pt2", "model.onnx"),
        ("model.pt2", "model.pt"),
    ]
    assert found["inputs"] == "16 random inputs of 3×10×10, seed 0"


def test_a_run_file_that_was_changed_is_found(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(home / "run", tmp_path / "run")
    model = onnx.load(tmp_path / "run" / "model.onnx")
    weight = next(each for each in model.graph.initializer if len(each.dims) == 4)
    changed = onnx.numpy_helper.to_array(weight) + 0.01
    weight.CopyFrom(onnx.numpy_helper.from_array(changed, weight.name))
    onnx.save(model, tmp_path / "run" / "model.onnx")
    assert cli.run(["verify", str(tmp_path / "run")]) == 1
    last = " ".join(capsys.readouterr().out.split())
    assert "FAILED model.onnx ≠ model.pt2: output" in last
    assert "model.pt ≠" not in last
    # a tolerance that is wide enough takes the same file
    assert cli.run(["verify", str(tmp_path / "run"), "--rtol", "10"]) == 0


def test_a_module_and_its_onnx_file_are_the_same_network_on_images(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify(capsys, home / "net.pt", home / "net.onnx", "--calib", home / "images", "--inputs", 5)
    (pair,) = found["pairs"]
    assert (code, found["n"], found["inputs"]) == (0, 5, "5 images of images")
    assert pair["runtimes"] == ["torch", "onnxruntime"]
    (output,) = pair["outputs"]
    assert output["shape"] == [4]
    assert 0 <= output["mean"] <= output["largest"] <= output["allowed"]


def test_an_architecture_is_for_the_state_dict_among_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("verify_nets.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())\n",
        encoding="utf-8",
    )
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    torch.save(made.state_dict(), "state.pt")
    torch.jit.save(torch.jit.trace(made, torch.randn(2, 3, 8, 8)), "script.pt")
    flags = ("--arch", "verify_nets:net", "--input-size", "3,8,8")
    code, found = verify(capsys, "script.pt", "state.pt", *flags)
    assert (code, found["n"]) == (0, 16)
    assert found["pairs"][0]["runtimes"] == ["torch", "torch"]


def test_answers_are_compared_by_the_role_of_the_output(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, home / "net.pt", home / "run", "--task", "classify")
    (answer,) = found["pairs"][0]["answers"]
    assert (code, found["same"]) == (1, False)
    assert (answer["role"], answer["metric"]) == ("logits", "agreement")
    assert 0 <= answer["after"] <= 1


def test_two_runs_are_compared_by_their_onnx_files(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify(capsys, home / "run", home / "bare")
    assert code == 1
    assert found["pairs"][0]["runtimes"] == ["onnxruntime", "onnxruntime"]
    assert verify(capsys, home / "run", home / "run" / "model.pt2")[0] == 0


def test_a_run_without_recovery_computes_what_the_masked_original_computes(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify(capsys, home / "bare", "--original", home / "net.pt")
    pairs = {(pair["second"], pair["first"]): pair for pair in found["pairs"]}
    cut, masked = pairs["cut original", "masked original"], pairs["model.pt2", "masked original"]
    assert code == 0
    assert max(output["largest"] for output in cut["outputs"]) < 1e-12
    assert masked["remark"] == ""
    assert pairs["model.pt2", "original"]["remark"]
    assert not all(output["same"] for output in pairs["model.pt2", "original"]["outputs"])


def test_a_recovered_run_differs_from_the_masked_original_and_does_not_fail(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify(capsys, home / "run", "--original", home / "net.pt")
    masked = next(
        pair for pair in found["pairs"] if (pair["second"], pair["first"]) == ("model.pt2", "masked original")
    )
    assert code == 0
    assert "recovered" in masked["remark"]


def test_an_original_that_is_another_file_is_warned_of(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(3)
    torch.save(net().apply(lambda part: getattr(part, "reset_parameters", lambda: None)()), tmp_path / "other.pt")
    assert cli.run(["verify", str(home / "bare"), "--original", str(tmp_path / "other.pt")]) == 1
    assert "other.pt is not the file that bare was made of" in capsys.readouterr().err


def test_an_onnx_file_that_pfp_does_not_read_is_run_by_onnxruntime(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [
        NODE("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        NODE("Cast", ["half"], ["wide"], to=TensorProto.FLOAT),
        NODE("QuantizeLinear", ["wide", "scale", "zero"], ["q"]),
        NODE("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    tensors = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", TensorProto.INT8, [], [0]),
    ]
    plain, rounded = tmp_path / "plain.onnx", tmp_path / "rounded.onnx"
    save([NODE("Identity", ["x"], ["y"])], plain)
    save(nodes, rounded, tensors)
    code, found = verify(capsys, plain, rounded, "--atol", 0.2)
    assert code == 0
    assert 0.01 < found["pairs"][0]["outputs"][0]["largest"] <= 0.2
    assert verify(capsys, plain, rounded)[0] == 1


def test_outputs_are_matched_by_their_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def file(name: str, order: tuple[str, str]) -> Path:
        path = save([NODE("Relu", ["x"], ["a"]), NODE("Neg", ["x"], ["b"])], tmp_path / name, output="a")
        model = onnx.load(path)
        del model.graph.output[:]
        model.graph.output.extend(helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in order)
        onnx.save(model, path)
        return path

    code, found = verify(capsys, file("ab.onnx", ("a", "b")), file("ba.onnx", ("b", "a")))
    assert code == 0
    assert [output["name"] for output in found["pairs"][0]["outputs"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("net.pt",), "error: net.pt: one file, nothing to compare it with"),
        (("images",), "error: images: no run here (no run.json)"),
        (("net.pt", "wide.pt", "--input-size", "3,10,10"), "net.pt and wide.pt compute the shapes 4×4 and 4×7"),
        (("net.pt", "net.pt"), "no file says how large its input is"),
        (("net.pt", "two.onnx"), "error: net.pt has 1 output, two.onnx has 2 outputs (a, b)"),
        (("net.onnx", "small.onnx"), "compute the shapes 4×4 and 4×3×8×8"),
        (("small.onnx", "large.onnx"), "error: small.onnx takes inputs of 3×8×8, large.onnx of 3×9×9"),
        (("net.pt", "gone.onnx"), "error: gone.onnx: there is no such file"),
        (("run", "net.onnx", "--original", "net.pt"), "error: --original net.pt: is for one run folder"),
        (("run", "--inputs", "0"), "error: --inputs 0: expected a whole number from 1 up"),
        (("run", "--atol", "-1"), "error: --atol -1: expected a number from 0 up"),
        (("two.pt2", "one.onnx"), "two.pt2 takes batches of 2; one.onnx takes batches of 1"),
        (("net.pt", "pair.onnx"), "error: pair.onnx: has 2 inputs (x, z); pfp runs networks of one"),
        (("net.pt", "whole.onnx"), "error: whole.onnx: reads inputs of type tensor(uint8), expected floats"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_compared_are_refused_in_one_line(
    args: tuple[str, ...],
    message: str | None,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(home)
    torch.save(net(classes=7), "wide.pt")
    relu = [NODE("Relu", ["x"], ["y"])]
    save(relu, Path("small.onnx"), sizes=("n", 3, 8, 8))
    save(relu, Path("large.onnx"), sizes=("n", 3, 9, 9))
    save(relu, Path("one.onnx"), sizes=(1, 3, 10, 10))
    save([NODE("Add", ["x", "z"], ["y"])], Path("pair.onnx"), inputs=("x", "z"))
    save([NODE("Cast", ["x"], ["y"], to=1)], Path("whole.onnx"), kind=TensorProto.UINT8)
    model = onnx.load(save([NODE("Relu", ["x"], ["a"]), NODE("Neg", ["x"], ["b"])], Path("two.onnx"), output="a"))
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, None))
    onnx.save(model, "two.onnx")
    err = refused(capsys, *args)
    assert message in err
    assert err.count("error:") == 1


def test_a_run_of_a_channels_last_file_is_compared_as_the_network_reads_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net()

        def forward(self, x: torch.Tensor) -> Any:
            return self.inner(x.permute(0, 3, 1, 2))

    write(Last().eval(), torch.randn(2, 10, 12, 3), tmp_path / "last.onnx")
    code, found = verify(capsys, tmp_path / "last.onnx", tmp_path / "last.onnx")
    assert code == 0
    assert "random inputs of 3×10×12" in found["inputs"]


def test_a_run_whose_file_goes_on_where_pfp_stops_is_compared_up_to_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = followed_by(selecting, tmp_path / "selecting.onnx")
    (tmp_path / "images").mkdir()
    for i in range(6):
        np.save(tmp_path / "images" / f"{i}.npy", torch.randn(*load(path).input_size or ()).numpy())
    settings: dict[str, Any] = {"allocate": "uniform", "recover": "none", "threads": 1, "out": tmp_path / "run"}
    pfpcli.compress(path, tmp_path / "images", keep=0.7, **settings)
    code, found = verify(capsys, tmp_path / "run")
    assert code == 0
    assert [pair["second"] for pair in found["pairs"]] == ["model.onnx"]
    assert len(found["pairs"][0]["outputs"]) == 1


def test_verify_from_python_returns_the_document(home: Path) -> None:
    found = pfpcli.verify(home / "run", threads=1)
    assert found.same
    assert not pfpcli.verify(home / "net.pt", home / "run").same
