"""`pfp sparsify`: the run folder, the record, the report and the refusals."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import pfpcli
from commands import Done, draw, hashes, plain, run_onnx
from pfpcli import report
from pfpcli.cli import main as cli
from pfpcli.jobs import sparsify
from pfpcli.records import reading
from pfpcli.records.folders import FILES
from pfpcli.records.runs import SparseRun
from runs import run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*args: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        code = cli.run(args)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network three of whose channels nothing reads, images in two classes, and two runs that keep 0.4."""
    folder = tmp_path_factory.mktemp("sparsify")
    module = plain()
    with torch.no_grad():
        module[1][0].weight[:, 5:8] = 0
    torch.save(module, folder / "model.pt")
    for number, name in enumerate(("a", "b")):
        draw(folder / "imgs" / name, 6, seed=number)
    for name, settings in {"run": {}, "cut": {"cut_dead": True}}.items():
        pfpcli.sparsify(
            folder / "model.pt", folder / "imgs", keep=0.4, out=folder / name, threads=1, samples=6, **settings
        )
    return folder


def read(run: Path) -> SparseRun:
    found = reading.read(run)
    assert isinstance(found, SparseRun)
    return found


def test_the_page_shows_the_layers_and_the_images_that_changed(folder: Path) -> None:
    page = (folder / "run" / FILES["page"]).read_text(encoding="utf-8")
    found = reading.read_details(folder / "run")
    assert found is not None
    assert found.groups == found.curves == []
    assert report.REPORTS["html"](read(folder / "run"), details=found) == page
    assert all(f"<td>{layer.name}</td>" in page for layer in read(folder / "run").layers)
    assert "Images that changed most" in page


def test_a_run_folder_holds_the_models_and_the_record(folder: Path) -> None:
    assert set(hashes(folder / "run")) == set(FILES.values()) - {FILES["plan"]}
    run, module = read(folder / "run"), torch.load(folder / "run" / FILES["pt"], weights_only=False)
    left = sum(int((p != 0).sum()) for p in module.parameters())
    assert (run.kind, run.status, run.requested) == ("sparsify", "ok", {"keep": 0.4})
    assert run.after.nonzeros == left == int(0.4 * run.before.params)
    assert run.achieved["keep"] == pytest.approx(left / run.before.params, abs=1e-6)
    assert run.before.params == run.after.params
    assert run.quality.metric == "accuracy"
    assert run.verification.cut_vs_masked is None
    assert run.verification.onnx_vs_torch < 1e-4
    fixed = run.before.nonzeros - sum(layer.nonzeros[0] for layer in run.layers)
    assert fixed + sum(layer.nonzeros[1] for layer in run.layers) == left
    assert run.json() == (folder / "run" / FILES["run"]).read_text(encoding="utf-8")


def test_the_zeros_are_in_the_initialisers_and_make_the_file_smaller_when_it_is_packed(folder: Path) -> None:
    run, file = read(folder / "run"), folder / "run" / FILES["onnx"]
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer]
    zeros = sum(int((each == 0).sum()) for each in weights if each.dtype == np.float32 and each.ndim > 1)
    assert zeros == sum(layer.weights - layer.nonzeros[1] for layer in run.layers) > 0
    assert run.after.file_bytes == file.stat().st_size == pytest.approx(run.before.file_bytes, rel=0.02)
    assert run.after.deflated_bytes == len(zlib.compress(file.read_bytes(), 9)) < 0.7 * run.before.deflated_bytes


def test_dead_channels_are_found_and_the_network_without_them_is_the_same(folder: Path) -> None:
    whole, smaller = read(folder / "run"), read(folder / "cut")
    assert whole.dead["channels"] == smaller.dead["channels"] == smaller.dead["cut"] >= 3
    assert whole.dead["cut"] == 0
    assert smaller.after.params < whole.after.params
    assert smaller.after.macs < whole.after.macs == whole.before.macs
    assert smaller.verification.cut_vs_masked is not None
    assert smaller.verification.cut_vs_masked < 1e-9
    assert smaller.artifacts["plan"] == FILES["plan"]
    x = torch.randn(5, 3, 8, 8)
    expected, found = (run_onnx(folder / name / FILES["onnx"], x) for name in ("run", "cut"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_report_shows_what_is_left_and_how_far_off_it_is(folder: Path, command: Callable[..., Done]) -> None:
    done = command("report", "run", "--all", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("PASS  model.pt: 40.0 % of the parameters are nonzero (asked 40.0 %)\n")
    for text in ("nonzeros", "deflated", "that file, zlib level 9", "accuracy", "latency  not measured", "error bound"):
        assert text in done.out
    for layer in read(folder / "run").layers:
        assert f"{layer.error:.3g}" in done.out
        assert layer.bound is not None
        assert (f"{layer.bound:.3g} vacuous" in done.out) == (layer.bound >= 1)
    assert "--cut-dead cuts them off" in done.out
    assert max(map(len, report.render(read(folder / "run")).splitlines())) <= 80
    assert "cut ≡ masked" not in done.out
    assert "cut ≡ masked" in command("report", "cut", "--all", cwd=folder).out


def test_a_bound_that_is_not_known_is_called_that(folder: Path) -> None:
    drawn = read(folder / "run")
    drawn.layers[0].bound = None
    drawn.scoring["form"] = "drawn"
    text = " ".join(report.render(drawn, everything=True).split())
    assert "not known" in text
    assert "a chance of 1e-16 to fail where weights were drawn" in text


def test_a_run_that_keeps_everything_is_the_network_that_came_in(folder: Path, tmp_path: Path) -> None:
    run = pfpcli.sparsify(
        folder / "model.pt", folder / "imgs", keep=1, criterion="magnitude", out=tmp_path / "run", threads=1, samples=4
    ).record
    before, after = (
        torch.load(each, weights_only=False).state_dict() for each in (folder / "model.pt", tmp_path / "run/model.pt")
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run.quality.before == run.quality.after
    assert run.after == run.before


def test_a_run_typed_ends_with_the_figures_and_gets_a_folder_of_its_own(
    folder: Path, tmp_path: Path, command: Callable[..., Done]
) -> None:
    line = ["sparsify", str(folder / "model.pt"), "--calib", str(folder / "imgs"), "--keep", "50%", "--samples", "4"]
    done = command(*line, "--threads", "1", "--criterion", "sipp-hybrid", "--freeze", "0", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.endswith("\nwrote pfp-runs/model-sparse0.50/    next: pfp report, or open report.html\n")
    run = json.loads((tmp_path / "pfp-runs/model-sparse0.50" / FILES["run"]).read_text(encoding="utf-8"))
    assert "0.0" not in [layer["name"] for layer in run["layers"]]
    assert run["settings"]["freeze"] == ["0"]


# --- refusals ------------------------------------------------------------------------------------------------------

REFUSED = {
    "no such criterion": (["--criterion", "snipp"], "--criterion snipp: expected one of sipp, ", "`--criterion snip`"),
    "criterion of channels": (["--criterion", "pfp"], "--criterion pfp: expected one of sipp, ", ""),
    "keep of zero": (["--keep", "0"], "--keep 0: expected a fraction above 0 and at most 1", "two fifths"),
    "keep out of reach": (["--keep", "0.01"], "--keep 0.01: not reachable; ", "use `--keep 0."),
    "delta": (["--delta", "2"], "--delta 2: expected a probability", "1e-9"),
    "no such layer": (["--freeze", "fc"], "--freeze fc: matches none of the ", "layers are named like"),
    "everything frozen": (["--freeze", "*"], "nothing can be sparsified: ", "fewer layers"),
    "flag of compress": (["--keep-of", "macs"], "--keep-of: no such option of pfp sparsify", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_line_and_leaves_nothing(
    name: str, folder: Path, tmp_path: Path, command: Callable[..., Done]
) -> None:
    flags, message, hint = REFUSED[name]
    done = command("sparsify", str(folder / "model.pt"), "--calib", str(folder / "imgs"), *flags, cwd=tmp_path)
    error = done.err[done.err.index("error: ") :]
    assert (done.code, done.out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") <= 3
    assert hint in error.partition("hint: ")[2]
    assert list(tmp_path.iterdir()) == []


def test_a_record_without_a_kind_is_one_of_a_compression(folder: Path, tmp_path: Path) -> None:
    old = json.loads(run().json())
    del old["kind"]
    (tmp_path / "run.json").write_text(json.dumps(old), encoding="utf-8")
    assert reading.read(tmp_path).json() == run().json()
    data = json.loads((folder / "run" / FILES["run"]).read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_text(json.dumps(data | {"kind": "other"}), encoding="utf-8")
    with pytest.raises(pfpcli.PfpError, match="not a run record"):
        reading.read(tmp_path)


def test_an_interrupted_run_goes_on(
    folder: Path, command: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    line = ["sparsify", str(folder / "model.pt"), "--calib", str(folder / "imgs"), "--keep", "0.4", "--samples", "6"]
    with monkeypatch.context() as patch:
        patch.setattr(sparsify, "export_files", interrupted)
        stopped = command(*line, "--threads", "1", "--out", "late", cwd=tmp_path)
    assert stopped.code == 130
    assert stopped.err.endswith("hint: go on with `pfp sparsify --resume late`\n")
    done = command("sparsify", "--resume", "late", cwd=tmp_path)
    assert done.code == 0
    for step in ("score", "errors", "evaluate"):
        assert re.search(rf"^  {step} +cached: ", done.err, re.MULTILINE), step
    assert (tmp_path / "late" / FILES["onnx"]).read_bytes() == (folder / "run" / FILES["onnx"]).read_bytes()
    assert read(tmp_path / "late").layers == read(folder / "run").layers
