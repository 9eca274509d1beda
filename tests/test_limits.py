"""A file of a few kilobytes that names huge sizes is refused before anything of that size is allocated."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

import pfpcli
from pfpcli import limits
from pfpcli.errors import InputError
from pfpcli.models.load import load


def onnx_file(nodes: list[Any], constants: dict[str, Any], path: Path, image: tuple[int, ...] = (1, 3, 8, 8)) -> Path:
    """A file of a convolution from x to c, and nodes to y."""
    held = {"w": np.ones((4, 3, 3, 3), np.float32), **constants}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), *nodes],
        "net",
        [helper.make_tensor_value_info("x", 1, image)],
        [helper.make_tensor_value_info("y", 1, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def summed(*nodes: Any) -> list[Any]:
    """The sum of a constant k, added to the convolution."""
    node = helper.make_node
    return [*nodes, node("ReduceSum", ["k"], ["r"], keepdims=0), node("Add", ["c", "r"], ["y"])]


NODE = helper.make_node
COLUMN, ROW = np.zeros((30_000, 1), np.float32), np.zeros((1, 30_000), np.float32)
FOLDED: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "ConstantOfShape": (summed(NODE("ConstantOfShape", ["s"], ["k"])), {"s": [50_000, 50_000]}),
    "MatMul": (summed(NODE("MatMul", ["a", "b"], ["k"])), {"a": COLUMN, "b": ROW}),
    "Add": (summed(NODE("Add", ["a", "b"], ["k"])), {"a": COLUMN, "b": ROW}),
    "Range": (
        summed(NODE("Range", ["a", "b", "d"], ["k"])),
        {"a": np.float32(0), "b": np.float32(1e12), "d": np.float32(1)},
    ),
    "Tile": (summed(NODE("Tile", ["a", "t"], ["k"])), {"a": COLUMN, "t": [1, 100_000]}),
}


@pytest.mark.parametrize("op", FOLDED)
def test_a_constant_that_would_be_huge_is_not_computed(op: str, tmp_path: Path) -> None:
    nodes, constants = FOLDED[op]
    with pytest.raises(InputError, match=r"net\.onnx: .* numbers; at most 268,435,456 are computed"):
        load(onnx_file(nodes, constants, tmp_path / "net.onnx"))


@pytest.mark.parametrize(
    ("image", "shown"), [((10**9, 3, 8, 8), "1000000000×3×8×8"), ((1, 3, 10**6, 10**6), "1×3×1000000×1000000")]
)
def test_an_input_that_would_be_huge_is_not_made(image: tuple[int, ...], shown: str, tmp_path: Path) -> None:
    path = onnx_file([NODE("Relu", ["c"], ["y"])], {}, tmp_path / "net.onnx", image)
    with pytest.raises(InputError, match=f"one input is {shown}"):
        pfpcli.inspect(path)


def test_a_value_that_would_be_huge_is_not_computed(tmp_path: Path) -> None:
    resize = NODE("Resize", ["c", "", "scales"], ["y"])
    path = onnx_file([resize], {"scales": np.array([1, 1, 1e4, 1e4], np.float32)}, tmp_path / "net.onnx")
    with pytest.raises(InputError, match="computes 1×4×60000×60000; pfp computes at most"):
        pfpcli.inspect(path)


def test_a_tensor_that_is_stored_once_and_read_many_times_is_refused(tmp_path: Path) -> None:
    layer = nn.Conv2d(3, 8, 3)
    layer.weight = nn.Parameter(torch.zeros(1).expand(10**5, 3, 1000, 100))
    torch.save(nn.Sequential(layer), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"0\.weight is 100000×3×1000×100 and stores 1 numbers only"):
        load(tmp_path / "model.pt")


def test_a_tensor_that_reaches_beyond_its_storage_is_refused() -> None:
    tensor = torch.zeros(4)
    tensor.untyped_storage().resize_(8)
    with pytest.raises(InputError, match=r"net\.pt: w needs 4 numbers and stores 2"):
        limits.check_stored("net.pt", "w", tensor)


def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNPACKED", 1 << 20)
    torch.save(nn.Conv2d(3, 4, 3), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data/9", bytes(8 << 20))
    with pytest.raises(InputError, match=r"model\.pt: unpacks to 8,\d+,\d+ bytes"):
        load(tmp_path / "model.pt")
    np.savez_compressed(tmp_path / "images.npz", x=np.zeros((800, 3, 32, 32), np.float32))
    with pytest.raises(InputError, match=r"images\.npz: unpacks to"):
        pfpcli.compress(nn.Conv2d(3, 4, 3), tmp_path, keep=0.5, out=tmp_path / "run")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_block_that_allocates_more_than_its_file_allows_is_ended() -> None:
    # a process of its own: the limit is that of the whole process
    code = """
from pfpcli.errors import InputError
from pfpcli import limits
limits.ALLOWANCE = 1 << 28
import numpy
try:
    with limits.bounded_memory("model.pt", 1000):
        numpy.ones(1 << 30)
except InputError as error:
    print(error.message)
numpy.ones(1 << 27)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "model.pt: reading it takes more than 256 MB of memory, for a file of 1,000 bytes\n"
