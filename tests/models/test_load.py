"""What `load` accepts, what it refuses, and that it says so in the right words."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model_files import (
    SAMPLES,
    Sample,
    image,
    plain_net,
    refusal,
    renamed_weight,
    rewritten,
    write_legacy,
    write_onnx,
    write_program,
    write_safetensors,
    write_script,
)
from pfpcli.models.artefact import open_artefact
from pfpcli.models.load import LOADERS, load

#: Formats of which these files hold nothing that could be cut.
REFUSED_FORMATS = {"onnx": write_onnx, "safetensors": write_safetensors}


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_network_computes_after_loading_what_it_computed_before(sample: Sample, folder: Path) -> None:
    net = plain_net()
    expected = net.eval()(image())
    path = folder / "weights.bin"  # a suffix of no format
    sample.write(net.train(), path)
    (folder / "plain.py").write_text("from torch import nn\nfrom collections import OrderedDict\n" + _PLAIN)
    source = load(path, arch="plain:net" if sample.kind == "state_dict" else None)
    assert (source.name, source.kind, len(source.sha256)) == ("weights.bin", sample.kind, 64)
    assert (source.program is not None) == (sample.kind == "pt2")
    assert sample.kind == "pt2" or not any(module.training for module in source.module.modules())
    torch.testing.assert_close(source.module(image()), expected, rtol=0, atol=1e-6)


_PLAIN = """
def net():
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(3, 8, 3, padding=1), norm=nn.BatchNorm2d(8), act=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(8, 5),
    ))
"""


def test_every_loader_recognises_its_own_files_and_no_others(tmp_path: Path) -> None:
    files: dict[str, list[Path]] = {}
    for number, sample in enumerate(SAMPLES.values()):
        path = tmp_path / f"sample{number}"
        sample.write(plain_net(), path)
        files.setdefault(sample.loader, []).append(path)
    for name, write in REFUSED_FORMATS.items():
        write(tmp_path / name)
        files[name] = [tmp_path / name]
    assert set(files) == {loader.name for loader in LOADERS}
    for name, paths in files.items():
        for path in paths:
            assert [loader.name for loader in LOADERS if loader.recognises(open_artefact(path))] == [name]


def test_the_hash_is_of_the_files_bytes(tmp_path: Path) -> None:
    import hashlib

    torch.save(plain_net(), tmp_path / "net.pt")
    assert load(tmp_path / "net.pt").sha256 == hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest()


def write_cut_off(path: Path) -> None:
    """The first half of a checkpoint."""
    torch.save(plain_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_damaged(path: Path) -> None:
    """A checkpoint whose pickle was overwritten."""
    torch.save(plain_net().state_dict(), path)
    rewritten(path, lambda name, content: b"\x80\x02}" if name.endswith("data.pkl") else content)


def write_damaged_script(path: Path) -> None:
    """TorchScript without its code."""
    write_script(plain_net(), path)
    rewritten(path, lambda name, content: b"" if "/code/" in name else content)


def write_damaged_program(path: Path) -> None:
    """A program whose graph is not JSON."""
    write_program(plain_net(), path)
    rewritten(path, lambda name, content: content[:99] if "/models/" in name else content)


def write_zip(path: Path) -> None:
    """A zip archive of anything."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "hello")


def with_number(name: str, value: float, count: int = 1) -> nn.Module:
    """`plain_net` with `count` bad numbers in one of its tensors."""
    net = plain_net()
    net.state_dict()[name].flatten()[:count] = value
    return net


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "folder": (lambda path: path.mkdir(), "this is a folder, expected a file", "pass a file"),
    "empty": (lambda path: path.touch(), "this file is empty", "download it again"),
    "text": (lambda path: path.write_text("hello\nthere\n"), "this is a text file", "torch.save(model"),
    "git lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "this is a Git LFS pointer",
        "git lfs pull",
    ),
    "image": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(40)), "no format that pfp knows", "torch.save"),
    "cut off": (write_cut_off, "it was cut off or changed", "download it again"),
    "damaged": (write_damaged, "cannot be read (EOFError)", "download it again"),
    "damaged script": (write_damaged_script, "cannot be read", "save it again"),
    "program without a weight": (
        lambda path: (write_program(plain_net(), path), rewritten(path, renamed_weight)),
        "cannot be read (RuntimeError: PytorchStreamReader failed locating file data/weights/weight_99",
        "save it again",
    ),
    "damaged program": (write_damaged_program, "cannot be read (JSONDecodeError", "save it again"),
    "cut off legacy": (
        lambda path: (write_legacy(plain_net().state_dict(), path), path.write_bytes(path.read_bytes()[:900])),
        "cannot be read",
        "download it again",
    ),
    "zip": (write_zip, "a zip archive, but not one that torch wrote", "torch.save"),
    "onnx": (write_onnx, "is of opset 1; pfp reads 7 and newer", "convert_version"),
    "safetensors": (write_safetensors, "this is a safetensors file", "safetensors.torch.load_file"),
    "list": (lambda path: torch.save([1, 2], path), "holds a list of 2, not a model", "model.state_dict()"),
    "tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor, not a model", "model.state_dict()"),
    "empty dict": (lambda path: torch.save({}, path), "holds an empty dict, not a model", ""),
    "dict of numbers": (
        lambda path: torch.save({"epoch": 3, "loss": 0.1}, path),
        "holds a dict with the keys 'epoch', 'loss', not a model",
        "",
    ),
    "no parameters": (lambda path: torch.save(nn.ReLU(), path), "holds a ReLU without parameters", ""),
    "nan": (
        lambda path: torch.save(with_number("conv.weight", float("nan"), 3), path),
        "conv.weight holds 3 NaN of 216 numbers",
        "before the training diverged",
    ),
    "infinite": (
        lambda path: torch.save(with_number("linear.bias", float("-inf")), path),
        "linear.bias holds 1 infinite of 5 numbers",
        "",
    ),
    "infinite statistics": (
        lambda path: torch.save(with_number("norm.running_var", float("inf")), path),
        "norm.running_var holds 1 infinite of 8 numbers",
        "",
    ),
    "nan in a program": (
        lambda path: write_program(with_number("conv.weight", float("nan")), path),
        "conv.weight holds 1 NaN",
        "",
    ),
    "nan in a script": (
        lambda path: write_script(with_number("conv.weight", float("nan")), path),
        "conv.weight holds 1 NaN",
        "",
    ),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("write", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_something_else_is_refused(
    write: Callable[[Path], Any], message: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    write(path)
    error = refusal(path)
    assert error.message.startswith("model.pt: ")
    assert message in error.message
    assert hint in error.hint


def test_a_mask_of_minus_infinity_is_no_broken_weight(tmp_path: Path) -> None:
    net = plain_net()
    net.register_buffer("mask", torch.full((3, 3), float("-inf")))
    torch.save(net, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").kind == "module"


def test_a_missing_file_names_the_nearest_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "resnet18.pt").touch()
    error = refusal(tmp_path / "resnt18.pt")
    assert (error.message, error.hint) == ("resnt18.pt: there is no such file", "did you mean `resnet18.pt`?")
    assert "no folder nowhere" in refusal(tmp_path / "nowhere" / "net.pt").message


def test_a_folder_names_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "a.pt").touch()
    assert refusal(tmp_path / "nets").hint == "pass a file in it, e.g. `nets/a.pt`"
