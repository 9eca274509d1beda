"""`--int8` and `--fp16`: files beside model.onnx, measured as the float file is; of modules and of ONNX files."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import nn

import onnx_files
import pfpcli
from commands import compress, draw, leaks, pfp, plain, relative, run_onnx
from pfpcli.jobs.steps import precision as steps
from pfpcli.records.folders import FILES, PRECISIONS
from pfpcli.records.reading import read
from pfpcli.records.runs import Run
from zoo import conv


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt, 24 images of noise, imgs, and a run that keeps everything in all precisions."""
    folder = tmp_path_factory.mktemp("small")
    torch.save(plain(), folder / "model.pt")
    draw(folder / "imgs", 24)
    settings = {"keep": 1, "int8": True, "fp16": True, "task": "classify", "out": folder / "run"}
    pfpcli.compress(folder / "model.pt", folder / "imgs", threads=1, **settings)
    return folder


def recorded(run: Path) -> Run:
    found = read(run)
    assert isinstance(found, Run)
    return found


def test_each_precision_has_its_file_and_is_measured_beside_the_float_file(small: Path) -> None:
    run = recorded(small / "run")
    assert [each.name for each in run.precisions] == ["float32", "int8", "fp16"]
    assert {file.name for file in (small / "run").iterdir()} == {*FILES.values(), *PRECISIONS.values()}
    assert run.artifacts == FILES | PRECISIONS
    for each in run.precisions:
        assert each.file is not None
        assert each.file_bytes == (small / "run" / each.file).stat().st_size
        assert each.latency_ms
        assert each.latency_ms > 0
        assert each.quality is not None
        assert (each.quality.metric, each.quality.n) == (run.quality.metric, run.quality.n)
    float32, int8, fp16 = run.precisions
    assert float32.quality == run.quality
    assert max(int8.file_bytes or 0, fp16.file_bytes or 0) < (float32.file_bytes or 0)
    assert (int8.layers, int8.in_float, fp16.in_float) == (4, [], [])
    assert 0 < (fp16.distance or 0) < (int8.distance or 0) <= steps.LIMIT
    assert 8 <= int8.calibrated <= 24


def test_files_of_other_precisions_take_batches_of_any_size_and_give_float32(small: Path) -> None:
    for name in PRECISIONS.values():
        for batch in (1, 5):
            x = torch.randn(batch, 3, 8, 8)
            found, expected = (run_onnx(small / "run" / file, x) for file in (name, FILES["onnx"]))
            assert (found.dtype, found.shape) == (torch.float32, expected.shape)
            assert relative(found, expected) < 0.2


def test_nothing_is_pruned_and_nothing_scored_where_only_the_precision_changes(small: Path) -> None:
    run = recorded(small / "run")
    assert run.achieved == {"keep": 1.0, "exact": True}
    assert run.scoring["criterion"] == "none"
    assert run.before.params == run.after.params
    assert "score" not in run.timings
    assert not any("not faster" in warning for warning in run.warnings)


def test_a_network_in_which_nothing_can_be_pruned_is_quantised_too(tmp_path: Path) -> None:
    layer = nn.Conv2d(3, 3, 3).eval()
    # one weight of each output is not 0: processors without 8-bit dot products add two products in 16 bits, too few for
    # those of two large weights
    nn.init.dirac_(layer.weight)
    torch.save(layer, tmp_path / "model.pt")
    run = compress(tmp_path / "model.pt", draw(tmp_path / "imgs", 24), tmp_path / "run", keep=1, int8=True)
    assert run.artifacts["int8"] == PRECISIONS["int8"]
    assert run.before.params == run.after.params


def test_a_pruned_network_is_quantised_after_the_cut(small: Path, tmp_path: Path) -> None:
    run = compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=0.4, int8=True, task="classify")
    assert [each.name for each in run.precisions] == ["float32", "int8"]
    sizes = {each.name: tuple(each.dims) for each in onnx.load(tmp_path / "run" / FILES["onnx"]).graph.initializer}
    int8 = onnx.load(tmp_path / "run" / PRECISIONS["int8"]).graph.initializer
    cut = sorted(size for size in sizes.values() if len(size) == 4)
    assert sorted(tuple(each.dims) for each in int8 if len(each.dims) == 4) == cut


@pytest.mark.parametrize("behind", [None, onnx_files.selecting])
def test_an_onnx_file_that_is_cut_in_place_is_quantised(tmp_path: Path, behind: object) -> None:
    file = tmp_path / "net.onnx"
    if behind is None:
        onnx_files.write(plain(), torch.randn(2, 3, 8, 8), file, opset=11)
    else:
        onnx_files.followed_by(onnx_files.selecting, file)
    imgs = draw(tmp_path / "imgs", 24)
    run = compress(file, imgs, tmp_path / "run", keep=0.6, int8=True, fp16=True)
    assert [each.file for each in run.precisions] == [FILES["onnx"], *PRECISIONS.values()]
    before = onnx.load(tmp_path / "run" / FILES["onnx"])
    for name in PRECISIONS.values():
        made = onnx.load(tmp_path / "run" / name)
        assert [each.name for each in made.graph.output] == [each.name for each in before.graph.output]
        assert run_onnx(tmp_path / "run" / name, torch.randn(3, 3, 8, 8)).shape[0] > 0


@pytest.mark.slow
def test_an_image_network_with_its_channels_last_is_quantised(tmp_path: Path) -> None:
    module = nn.Sequential(conv(3, 8), nn.Conv2d(8, 3, 3, 1, 1), nn.Sigmoid()).eval()
    inner = onnx.load(onnx_files.write(module, torch.randn(1, 3, 8, 8), tmp_path / "inner.onnx", free=()))
    graph = inner.graph
    turned = helper.make_node("Transpose", ["pixels"], ["image"], perm=[0, 3, 1, 2])
    nodes = [turned, *graph.node]
    image = helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, 8, 8, 3])
    made = helper.make_graph(nodes, "net", [image], list(graph.output), list(graph.initializer))
    onnx.save(helper.make_model(made, opset_imports=inner.opset_import, ir_version=8), tmp_path / "net.onnx")
    run = compress(
        tmp_path / "net.onnx", draw(tmp_path / "imgs", 24), tmp_path / "run", keep=1, int8=True, preprocess="unit"
    )
    assert run.quality.metric == "ssim"
    assert run.precisions[1].file == PRECISIONS["int8"]
    assert run.precisions[1].quality is not None
    assert 0.5 < run.precisions[1].quality.after < 1


def test_layers_that_lose_too_much_stay_in_float32(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recorded(small / "run").precisions[1].distance or 0.0
    monkeypatch.setattr(steps, "LIMIT", whole / 2)
    run = compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=1, int8=True, task="classify")
    int8 = run.precisions[1]
    assert 0 < len(int8.in_float) < int8.layers
    assert set(int8.in_float) <= {"0.0", "1.0", "3.0", "4.2"}
    assert (int8.distance or 1.0) <= whole / 2


def test_a_network_that_cannot_be_quantised_gives_one_line_and_the_run_stays(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LIMIT", -1.0)
    run = compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=1, int8=True, task="classify")
    assert (run.status, run.precisions[1].file) == ("ok", None)
    (line,) = [warning for warning in run.warnings if "int8" in warning]
    assert line == "model-int8.onnx: not written: its outputs move too far with any of its layers in that precision"
    assert {file.name for file in (tmp_path / "run").iterdir()} == {*FILES.values()}


def test_a_failure_of_the_tools_gives_one_line_and_the_run_stays(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no range\nfor tensor x")

    monkeypatch.setattr("pfpcli.exporting.lower_precision.measure_ranges", fail)
    run = compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=1, int8=True, fp16=True, task="classify")
    assert [each.why for each in run.precisions[1:]] == ["onnxruntime's tools fail: no range for tensor x"] * 2
    assert (tmp_path / "run" / FILES["onnx"]).exists()


def test_a_metric_of_the_user_is_measured_on_every_file_and_its_gate_holds_for_the_float_file_alone(
    small: Path, tmp_path: Path
) -> None:
    (tmp_path / "size.py").write_text("import os\n\n\ndef size(file, images):\n    return os.path.getsize(file)\n")
    metric = f"{tmp_path / 'size.py'}:size"
    run = compress(
        small / "model.pt", small / "imgs", tmp_path / "run", keep=1, int8=True, metric=metric, max_drop=5000
    )
    assert [each.metric for each in run.precisions] == [each.file_bytes for each in run.precisions]
    assert run.status == "ok"
    (line,) = [warning for warning in run.warnings if "--max-drop" in warning]
    assert line.startswith("model-int8.onnx: size fell by ")
    assert line.endswith("--max-drop 5000 holds for model.onnx alone")


def test_the_terminal_and_the_folder_stay_clean(small: Path, tmp_path: Path) -> None:
    line = ["compress", str(small / "model.pt"), "--calib", str(small / "imgs"), "--keep", "1", "--task", "classify"]
    done = pfp(*line, "--int8", "--fp16", "--threads", "1", "--out", "run", cwd=tmp_path)
    assert done.code == 0, done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    assert leaks(tmp_path / "run", small) == []
    steps_shown = [text.split()[0] for text in done.err.splitlines() if text.startswith("  ") and text[2] != " "]
    assert steps_shown[-4:] == ["ranges", "int8", "fp16", "compare"]
    noise = [text for text in done.err.splitlines() if text.strip() and not text.startswith((" ", "warning: "))]
    assert noise == []
    assert "precision" in done.out


def test_a_converted_file_holds_nothing_of_the_tools(small: Path) -> None:
    for name in PRECISIONS.values():
        model = onnx.load(small / "run" / name)
        onnx.checker.check_model(model)
        assert (model.producer_name, list(model.metadata_props)) == ("pfp", [])
        assert {each.domain for each in model.opset_import} == {""}
