"""Whole compressions, from a checkpoint and a folder of images to a run folder, and what is refused on the way."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import Message
from PIL import Image
from torch.export import Dim

import pfpcli
from commands import (
    ARCH,
    ENV,
    NETS,
    QUICK,
    ROOT,
    SAMPLES,
    SHARED,
    Done,
    compress,
    draw,
    fresh,
    hashes,
    leaks,
    messages,
    pfp,
    plain,
    plain_file,
    relative,
    run_onnx,
    sample_file,
    sample_images,
    tensors,
)
from forked import CAN_FORK, PRUNING, Server, begun, ended
from pfpcli.cli import main as cli
from pfpcli.cli.session import Session
from pfpcli.errors import CalibrationError, InputError
from pfpcli.exporting import export
from pfpcli.images.preprocess import PRESETS
from pfpcli.jobs.steps.expected import forecast
from pfpcli.records.folders import FILES
from pfpcli.records.runs import Run
from pfpcli.settings import CompressSettings

#: The line of the README, and the folder it writes to.
LINE = ["compress", "model.pt", "--calib", "./imgs", "--keep", "0.4"]
RUN = "pfp-runs/model-keep0.40"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """The same without the two seconds that a process takes to import torch."""

    def run(*args: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        capsys.readouterr()
        code = cli.run([*args, "--threads", "1"])
        return Done(code, *capsys.readouterr())

    return run


# --- the line as typed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """The line of the README typed twice: in a process that imports everything, then with --json in one that forks."""

    folder: Path
    first: Done
    report: Done
    second: Done
    before_second: dict[str, str]

    @property
    def run(self) -> Path:
        return self.folder / RUN

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.run / FILES["run"]).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Typed:
    folder = tmp_path_factory.mktemp("typed")
    shutil.copy(SAMPLES / "model.pt", folder)
    sample_images(folder / "imgs", 12)
    first = fresh(*LINE, cwd=folder)
    report = pfp("report", cwd=folder)
    before = hashes(folder / RUN)
    return Typed(folder, first, report, pfp(*LINE, "--json", cwd=folder), before)


def test_the_line_as_typed_writes_a_run_folder(typed: Typed) -> None:
    assert typed.first.code == 0, typed.first.err
    assert {file.name for file in typed.run.iterdir()} == {*FILES.values()}
    assert typed.first.out.endswith(f"\nwrote {RUN}/    next: pfp report, or open report.html\n")
    steps = [line.split()[0] for line in typed.first.err.splitlines() if re.match(r"  \S", line)]
    first = ["load", "images", "trace", "score", "curves", "plan", "cut", "verify", "recover", "certify"]
    assert steps == [*first, "evaluate", "export", "measure"]


def test_a_second_run_gets_a_folder_of_its_own_and_leaves_the_first_alone(typed: Typed) -> None:
    assert typed.second.code == 0, typed.second.err
    assert hashes(typed.run) == typed.before_second
    assert {run.name for run in (typed.folder / "pfp-runs").iterdir()} == {typed.run.name, f"{typed.run.name}-2"}
    assert {entry.name for entry in typed.folder.iterdir()} == {"model.pt", "imgs", "pfp-runs"}


def test_json_prints_the_record_and_nothing_else(typed: Typed) -> None:
    printed = json.loads(typed.second.out)
    assert printed.pop("folder") == f"{RUN}-2"
    assert printed == json.loads((typed.folder / f"{RUN}-2" / FILES["run"]).read_text(encoding="utf-8"))


def test_two_runs_of_one_line_decide_the_same(typed: Typed) -> None:
    first, second = typed.record, json.loads(typed.second.out)
    del second["folder"]
    for record in (first, second):
        del record["latency"]["runs"], record["latency"]["speed_up"]
    for changes in ("created", "timings", "memory", "warnings"):
        first.pop(changes), second.pop(changes)
    for cost in (first["before"], first["after"], second["before"], second["after"]):
        cost.pop("latency_ms"), cost.pop("latency_iqr_ms")
    assert first == second
    assert tensors(typed.run) == tensors(typed.folder / f"{RUN}-2")


def test_the_record_has_what_the_issue_names(typed: Typed) -> None:
    record = typed.record
    assert (record["schema_version"], record["pfp_version"], record["status"]) == (1, pfpcli.__version__, "ok")
    assert record["requested"] == {"keep": 0.4, "of": "params", "precision": "float32", "epsilon": None, "amount": None}
    assert record["achieved"]["keep"] == pytest.approx(0.4, rel=0.005)
    for name in ("before", "after"):
        cost = record[name]
        assert all(isinstance(cost[key], int) and cost[key] > 0 for key in ("params", "macs", "bytes", "file_bytes"))
        assert isinstance(cost["latency_ms"], float)
    assert record["after"]["params"] / record["before"]["params"] == pytest.approx(record["achieved"]["keep"], abs=1e-6)
    assert record["after"]["file_bytes"] == (typed.run / FILES["onnx"]).stat().st_size
    quality = record["quality"]
    assert quality["metric"] == "accuracy"
    assert quality["before"] > 0.9
    assert all(0 <= quality[key] <= 1 for key in ("before", "after", "agreement"))
    assert quality["n"] == record["calibration"]["evaluated"] > 0
    assert record["calibration"]["scored"] + quality["n"] <= record["calibration"]["images"]
    verification = record["verification"]
    assert verification["cut_vs_masked"] < 1e-9
    assert verification["onnx_vs_torch"] < 1e-4
    assert verification["model_pt"] == "ok"
    assert record["artifacts"] == FILES
    assert {"load", "score", "export"} <= record["timings"].keys()
    expected = forecast(CompressSettings(model=Path("model.pt"), calib=Path("imgs"), keep=0.4), "module")
    assert expected is not None
    assert [name for name in record["timings"] if name in expected.expected] == [*expected.expected]
    assert all(seconds >= 0 for seconds in record["timings"].values())
    assert all(isinstance(warning, str) for warning in record["warnings"])


def test_layers_and_groups_add_up(typed: Typed) -> None:
    record = typed.record
    for side, name in enumerate(("before", "after")):
        assert sum(layer["macs"][side] for layer in record["layers"]) == record[name]["macs"]
    assert all({"name", "size", "kept", "frozen_reason"} <= group.keys() for group in record["groups"])
    frozen = [group for group in record["groups"] if group["frozen_reason"]]
    assert {group["frozen_reason"] for group in frozen} == {"input of the model", "output of the model"}
    assert all(group["kept"] == group["size"] for group in frozen)
    assert any(group["kept"] < group["size"] for group in record["groups"])


def test_the_record_tells_the_groups_of_convolutions(typed: Typed) -> None:
    groups = {layer["name"]: (layer["groups"], layer["channels_in"]) for layer in typed.record["layers"]}
    assert groups["3.0"][0] == groups["10"][0] == [1, 1]
    assert groups["5.0"][0] == groups["5.0"][1]  # depthwise


def test_the_report_shows_accuracy_where_class_folders_are(typed: Typed) -> None:
    assert (typed.report.code, typed.report.err) == (0, "")
    assert typed.report.out.startswith("PASS  model.pt")
    for word in ("parameters", "MACs", "file (onnx)", "latency", "accuracy", "not pruned", "output of the model"):
        assert word in typed.report.out
    quality = typed.record["quality"]
    assert f"{100 * quality['before']:.1f} %" in typed.report.out
    assert f"top-1, {quality['n']} held-out images" in typed.report.out


def test_without_class_folders_it_is_agreement_and_called_that(small: Path) -> None:
    report = pfp("report", "run", cwd=small).out
    assert "agreement" in report
    assert "top-1 same as the original's" in report
    assert "accuracy" not in report


# --- the files -----------------------------------------------------------------------------------------------------


def test_the_onnx_file_takes_any_batch_and_has_the_names_of_torchs_own_export(typed: Typed) -> None:
    module = torch.load(typed.folder / "model.pt", weights_only=False)
    x = torch.randn(2, 3, 32, 32)
    exported = torch.onnx.export(module, (x,), dynamo=True, verbose=False, dynamic_shapes=({0: Dim.DYNAMIC},))
    assert exported is not None
    theirs, ours = exported.model_proto, onnx.load(typed.run / FILES["onnx"])
    assert [value.name for value in ours.graph.input] == [value.name for value in theirs.graph.input]
    assert [value.name for value in ours.graph.output] == [value.name for value in theirs.graph.output]
    for batch in (1, 7):
        assert run_onnx(typed.run / FILES["onnx"], torch.randn(batch, 3, 32, 32)).shape == (batch, 8)


def metadata_in(model: onnx.ModelProto) -> list[Message]:
    """Every part of a model that has a comment or metadata."""
    return [m for m in messages(model) if getattr(m, "doc_string", "") or len(getattr(m, "metadata_props", ()))]


def test_the_onnx_file_names_its_maker_and_has_no_metadata(typed: Typed) -> None:
    model = onnx.load(typed.run / FILES["onnx"])
    assert model.producer_name == "pfp"
    assert not metadata_in(model)


def test_the_file_of_the_second_exporter_is_as_clean(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> onnx.ModelProto:
        raise RuntimeError("no such op")

    for name in ("_export_converted", "_export_program"):
        monkeypatch.setattr(export, name, fails)
    plan = small / "run" / "plan.json"
    compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=None, plan=plan, task="classify")
    files = [folder / "run" / FILES["onnx"] for folder in (small, tmp_path)]
    first, second = map(onnx.load, files)
    assert not metadata_in(second)
    assert [v.name for v in second.graph.input] == [v.name for v in first.graph.input]
    assert [v.name for v in second.graph.output] == [v.name for v in first.graph.output]
    x = torch.randn(7, 3, 8, 8)
    assert relative(*(run_onnx(file, x) for file in files)) < 1e-4


def test_the_three_files_of_a_run_give_the_same_outputs_on_images(typed: Typed) -> None:
    preset = PRESETS["imagenet"]
    pixels = [np.asarray(Image.open(file)) for file in sorted((typed.folder / "imgs").glob("*/00.jpg"))[:3]]
    images = torch.from_numpy(np.stack([preset.normalised(image.transpose(2, 0, 1)) for image in pixels]))
    module = torch.load(typed.run / FILES["pt"], weights_only=False)
    program = torch.export.load(typed.run / FILES["pt2"]).module(check_guards=False)
    with torch.no_grad():
        expected = module(images)
        assert relative(program(images), expected) < 1e-4
    assert relative(run_onnx(typed.run / FILES["onnx"], images), expected) < 1e-4


def test_what_was_written_can_be_compressed_again(typed: Typed, command: Callable[..., Done]) -> None:
    # without --trust: the smaller module needs no other classes than the original
    line = ["compress", f"{RUN}/model.pt", "--calib", "imgs", "--keep", "80%", "--json"]
    done = command(*line, "--criterion", "l2", "--allocate", "uniform", "--recover", "none", cwd=typed.folder)
    assert done.code == 0, done.err
    again = json.loads((typed.folder / "pfp-runs/model-keep0.80" / FILES["run"]).read_text(encoding="utf-8"))
    shutil.rmtree(typed.folder / "pfp-runs/model-keep0.80")  # other tests look at what the line left behind
    assert again["before"]["params"] == typed.record["after"]["params"]
    assert again["before"]["macs"] == typed.record["after"]["macs"]
    assert again["quality"]["metric"] == "accuracy"


def test_no_file_tells_about_the_machine(typed: Typed) -> None:
    assert leaks(typed.run, typed.folder) == []


# --- the budget ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small network, model.pt and model.onnx, 16 images of noise, imgs, and a run that keeps 0.4."""
    folder = tmp_path_factory.mktemp("small")
    torch.save(plain(), folder / "model.pt")
    plain_file(folder)
    compress(folder / "model.pt", draw(folder / "imgs", 16), folder / "run", keep=0.4, task="classify")
    return folder


def test_keeping_everything_changes_nothing(small: Path, tmp_path: Path) -> None:
    run = compress(small / "model.pt", small / "imgs", tmp_path / "run", keep=1, task="classify")
    before = torch.load(small / "model.pt", weights_only=False)
    after = torch.load(tmp_path / "run" / FILES["pt"], weights_only=False)
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())
    x = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(after(x), before(x))
    assert run.achieved == {"keep": 1.0, "exact": True}
    assert (run.quality.metric, run.quality.after) == ("agreement", 1.0)
    assert tensors(tmp_path / "run") == {}


def test_a_percentage_is_the_fraction(small: Path, tmp_path: Path, command: Callable[..., Done]) -> None:
    for keep in ("40%", "0.4"):
        given = [str(small / "model.pt"), "--calib", str(small / "imgs"), "--keep", keep, "--out", keep]
        done = command("compress", *given, cwd=tmp_path)
        assert done.code == 0, done.err
    assert tensors(tmp_path / "40%") == tensors(tmp_path / "0.4") != {}


def test_a_budget_of_macs_is_met_or_said_not_to_be(small: Path, tmp_path: Path) -> None:
    run = compress(small / "model.onnx", small / "imgs", tmp_path / "run", keep=0.3, keep_of="macs")
    kept = run.after.macs / run.before.macs
    assert run.requested == {"keep": 0.3, "of": "macs", "precision": "float32", "epsilon": None, "amount": None}
    assert run.achieved["keep"] == pytest.approx(kept, abs=1e-6)
    assert run.achieved["exact"] == (abs(kept - 0.3) <= 0.005 * 0.3)
    assert kept == pytest.approx(0.3, rel=0.03)


def test_widths_and_frozen_layers_are_respected_and_the_closest_budget_reported(
    small: Path, tmp_path: Path, command: Callable[..., Done]
) -> None:
    line = ["compress", str(small / "model.pt"), "--calib", str(small / "imgs"), "--keep", "0.6", "--out", "run"]
    done = command(*line, "--multiple-of", "8", "--min-channels", "9", "--freeze", "0.*", cwd=tmp_path)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "run" / FILES["run"]).read_text(encoding="utf-8"))
    groups = {group["name"]: group for group in record["groups"]}
    assert (groups["0.0"]["frozen_reason"], groups["0.0"]["kept"], groups["0.0"]["size"]) == ("--freeze 0.*", 24, 24)
    # 16 is the first multiple of 8 from 9 up
    assert (groups["1.0"]["kept"], groups["3.0"]["kept"]) == (16, 16)
    assert not record["achieved"]["exact"]
    assert any(f"the closest plan there is keeps {record['achieved']['keep']:.4f}" in w for w in record["warnings"])
    assert "closest feasible" in pfp("report", "run", cwd=tmp_path).out


# --- one network in many forms -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The current folder, with the module that builds the networks."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / f"{ARCH}.py").write_text(NETS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield folder
    sys.modules.pop(ARCH, None)


#: File and what has to be said about it.
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "module": ("module.pt", {"trust": True}),
    "state_dict": ("state.pt", {"arch": f"{ARCH}:tiny"}),
    "checkpoint": ("checkpoint.pth", {"arch": f"{ARCH}:tiny"}),
    "torchscript": ("script.pt", {}),
    "pt2": ("program.pt2", {}),
}


@pytest.fixture(scope="module")
def forms(nets: Path) -> dict[str, Run]:
    """One network saved in every form, and compressed."""
    module = __import__(ARCH).tiny().eval()
    x = torch.randn(2, 3, 16, 16)
    torch.save(module, "module.pt")
    torch.save(module.state_dict(), "state.pt")
    prefixed = {f"module.{name}": value for name, value in module.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": prefixed}, "checkpoint.pth")
    torch.jit.save(torch.jit.trace(module, x), "script.pt")
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=({0: Dim.AUTO},)), "program.pt2")
    imgs = draw(nets / "imgs", 16, 16)
    return {
        form: compress(nets / file, imgs, nets / form, samples=8, allocate="uniform", **settings)
        for form, (file, settings) in FORMS.items()
    }


@pytest.mark.parametrize("form", FORMS)
def test_one_network_is_compressed_the_same_in_every_form(form: str, forms: dict[str, Run], nets: Path) -> None:
    run, other = forms[form], forms["state_dict"]
    assert tensors(nets / form) == tensors(nets / "state_dict") != {}
    assert run.model["kind"] == {"checkpoint": "state_dict"}.get(form, form)
    assert run.model["input_size"] == [3, 16, 16]
    assert run.achieved == other.achieved
    assert (run.after.params, run.after.macs) == (other.after.params, other.after.macs)
    assert run.verification.cut_vs_masked < 1e-9
    assert run.verification.onnx_vs_torch < 1e-4
    # the code of the shortcut says how many channels it pads: its class does not fit the smaller tensors
    assert run.artifacts["pt"] is None
    reason = "the input is no module: " if form in ("torchscript", "pt2") else "its own forward fails"
    assert run.verification.model_pt.startswith(reason)
    x = torch.randn(7, 3, 16, 16)
    assert relative(*(run_onnx(nets / name / FILES["onnx"], x) for name in (form, "state_dict"))) < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_no_form_brings_traces_of_the_users_code_along(form: str, forms: dict[str, Run], nets: Path) -> None:
    assert leaks(nets / form, nets) == []


def test_what_is_looked_for_is_in_the_program_that_came_in(forms: dict[str, Run], nets: Path, tmp_path: Path) -> None:
    shutil.copy(nets / "program.pt2", tmp_path)
    assert {leak.rpartition(": ")[2] for leak in leaks(tmp_path, nets)} >= {str(nets), "stack_trace"}


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of every class to choose by, and twenty to judge by."""
    folder = tmp_path_factory.mktemp("cifar10")
    for part, count in (("train", 10), ("test", 20)):
        for place in sorted((SHARED / "cifar10" / part).iterdir()):
            (folder / part / place.name).mkdir(parents=True)
            for file in sorted(place.iterdir())[:count]:
                (folder / part / place.name / file.name).symlink_to(file)
    return folder


#: A trained network in many forms, and what has to be said about each.
TRAINED: dict[str, dict[str, str]] = {
    "resnet20_state.pt": {"arch": f"{ARCH}:resnet20"},
    "resnet20_checkpoint.pth": {"arch": f"{ARCH}:resnet20"},
    "resnet20_torchscript.pt": {},
    "resnet20.pt2": {},
}
needs_models = pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="no shared data here")


@cache
def trained(file: str, cifar: Path, nets: Path) -> Run:
    """The run of a trained network; its folder is `nets / "runs" / file`."""
    return compress(
        SHARED / "models" / file,
        cifar / "train",
        nets / "runs" / file,
        keep=0.4,
        samples=32,
        eval=cifar / "test",
        **TRAINED[file],
    )


def assert_judged_by_accuracy(run: Run, folder: Path, nets: Path) -> None:
    assert (run.quality.metric, run.quality.n, run.quality.source) == ("accuracy", 200, "images of test")
    assert run.quality.before > 0.8
    assert run.achieved["keep"] == pytest.approx(0.4, rel=0.005)
    assert run.verification.onnx_vs_torch < 1e-4
    assert leaks(folder, nets) == []


@needs_models
def test_a_trained_network_is_judged_by_its_accuracy_on_images_of_its_own(
    cifar: Path, nets: Path, tmp_path: Path
) -> None:
    file = SHARED / "models" / "resnet20.onnx"  # torch need not export it
    run = compress(file, cifar / "train", tmp_path / "run", keep=0.4, eval=cifar / "test", **QUICK)
    assert_judged_by_accuracy(run, tmp_path / "run", nets)


@needs_models
@pytest.mark.slow
@pytest.mark.parametrize("file", TRAINED)
def test_a_trained_network_in_every_form_is_judged_by_its_accuracy(file: str, cifar: Path, nets: Path) -> None:
    assert_judged_by_accuracy(trained(file, cifar, nets), nets / "runs" / file, nets)


@needs_models
@pytest.mark.slow
def test_a_trained_network_is_compressed_the_same_in_every_form(cifar: Path, nets: Path) -> None:
    runs = {file: trained(file, cifar, nets) for file in TRAINED}
    found = [
        (tensors(nets / "runs" / file), run.quality.before, run.quality.after, run.after.macs)
        for file, run in runs.items()
    ]
    assert all(each == found[0] for each in found)


# --- calibration folders -------------------------------------------------------------------------------------------


def test_arrays_calibrate_as_well(small: Path, tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "a.npy", np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32))
    run = compress(small / "model.onnx", tmp_path / "arrays", tmp_path / "run", samples=4)
    assert run.model["input_size"] == [3, 8, 8]
    assert run.calibration["preprocess"]["name"] == "none"
    assert (run.calibration["scored"], run.calibration["evaluated"]) == (4, 4)


def test_a_network_of_one_channel_takes_grey_images(tmp_path: Path) -> None:
    torch.save(plain(1), tmp_path / "model.pt")
    run = compress(
        tmp_path / "model.pt", draw(tmp_path / "grey", 12, mode="L"), tmp_path / "run", preprocess="unit", samples=4
    )
    assert run.model["input_size"] == [1, 8, 8]
    assert run.calibration["converted"] == 0


def test_grey_images_can_be_converted_for_a_network_that_does_not_say_its_channels(small: Path, tmp_path: Path) -> None:
    grey = draw(tmp_path / "grey", 12, mode="L")
    run = compress(small / "model.pt", grey, tmp_path / "run", convert=True, samples=4)
    assert run.model["input_size"] == [3, 8, 8]
    assert run.calibration["converted"] == 12


def test_images_of_a_folder_of_their_own_judge_alone(small: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other", 9, seed=1)
    run = compress(small / "model.onnx", small / "imgs", tmp_path / "run", eval=other)
    assert (run.quality.n, run.quality.source) == (9, "images of other")
    assert (run.calibration["scored"], run.calibration["evaluated"]) == (16, 9)


def test_no_image_judges_that_recovery_has_seen(small: Path, tmp_path: Path) -> None:
    held = compress(small / "model.onnx", draw(tmp_path / "imgs", 36), tmp_path / "run", samples=4).calibration
    assert (held["scored"], held["fitted"], held["checked"], held["evaluated"]) == (4, 18, 6, 12)
    other = draw(tmp_path / "other", 9, seed=1)
    held = compress(small / "model.onnx", tmp_path / "imgs", tmp_path / "again", eval=other, samples=4).calibration
    assert (held["scored"], held["fitted"], held["checked"], held["evaluated"]) == (4, 27, 9, 9)


@pytest.mark.parametrize("judges", ["imgs", "some", "links"])
def test_images_that_choose_may_not_judge(judges: str, small: Path, tmp_path: Path) -> None:
    imgs = draw(tmp_path / "imgs", 6)
    shutil.copytree(imgs, imgs / "some")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a.png").symlink_to(imgs / "00.png")
    folder = next(tmp_path.rglob(judges))
    with pytest.raises(CalibrationError, match=rf"--eval {judges}: \d+ of its \d+ files are in --calib imgs too"):
        compress(small / "model.pt", imgs, tmp_path / "run", eval=folder)
    assert not (tmp_path / "run").exists()


def test_broken_images_are_skipped_and_counted_and_few_good_ones_warned_about(small: Path, tmp_path: Path) -> None:
    imgs = draw(tmp_path / "imgs", 2)
    for name in ("a.png", "b.jpg", "c.webp"):
        (imgs / name).write_bytes(b"no image")
    run = compress(small / "model.onnx", imgs, tmp_path / "run")
    assert (run.calibration["images"], run.calibration["skipped"]) == (2, 3)
    assert run.calibration["scored"] == run.calibration["evaluated"] == 1
    warnings = "\n".join(run.warnings)
    assert "3 files could not be read and were skipped" in warnings
    assert re.search(r"scored on 1 images?; the guarantee asks for \d+: add images to imgs", warnings)


def test_an_original_that_only_guesses_is_warned_about(typed: Typed, tmp_path: Path) -> None:
    names = sorted(place.name for place in (typed.folder / "imgs").iterdir())
    for name, wrong in zip(names, names[1:] + names[:1], strict=True):
        (tmp_path / "imgs" / wrong).mkdir(parents=True)
        for file in sorted((typed.folder / "imgs" / name).iterdir())[:10]:
            shutil.copy(file, tmp_path / "imgs" / wrong)
    run = compress(sample_file(tmp_path), tmp_path / "imgs", tmp_path / "run", **QUICK)
    assert run.quality.before < 0.2
    assert any("preprocessing" in warning and "order of the class folders" in warning for warning in run.warnings)


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all the wrong files, next to a right one of each kind."""
    folder = tmp_path_factory.mktemp("refused") / "inputs"
    folder.mkdir()
    (folder / f"{ARCH}.py").write_text(NETS, encoding="utf-8")
    module = plain()
    torch.save(module, folder / "model.pt")
    torch.save(module.state_dict(), folder / "state.pt")
    program = torch.export.export(module, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: Dim.AUTO},))
    torch.export.save(program, folder / "program.pt2")
    whole = (folder / "model.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").touch()
    (folder / "notes.pt").write_text("learning rate 0.1\n", encoding="utf-8")
    torch.save(Malicious(folder / "harm"), folder / "malicious.pt")
    with torch.no_grad():
        module[1][0].weight[0, 0] = float("nan")
    torch.save(module, folder / "nan.pt")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [])), folder / "model.onnx")
    draw(folder / "imgs", 8)
    draw(folder / "grey", 3, mode="L")
    draw(folder / "rgba", 3, mode="RGBA")
    draw(folder / "sizes", 3)
    draw(folder / "sizes" / "more", 3, side=9)
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    for number in range(3):
        (folder / "broken" / f"{number}.png").write_bytes(b"no image")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "a.npy", np.zeros((4, 3, 9, 9), np.float32))
    return folder


class Malicious:
    """Makes a folder where it is unpickled."""

    def __init__(self, harm: Path) -> None:
        self.harm = harm

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.harm),)


IMGS = ["--calib", "@/imgs"]
MODEL = "@/model.pt"
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")

#: Arguments (@ is the folder of `inputs`), how the error goes on after `error: `, and a part of the hint.
REFUSED: dict[str, tuple[list[str], str, str]] = {
    "missing model": (["@/modle.pt", *IMGS], "modle.pt: there is no such file", "`model.pt`"),
    "empty model": (["@/empty.pt", *IMGS], "empty.pt: this file is empty", "again"),
    "truncated zip": (["@/truncated.pt", *IMGS], "truncated.pt: this zip archive has no end", "again"),
    "text file": (["@/notes.pt", *IMGS], "notes.pt: this is a text file", "torch.save(model, path)"),
    "onnx file": (["@/model.onnx", *IMGS], "model.onnx: holds a graph without parameters", "with its weights in it"),
    "state dict alone": (["@/state.pt", *IMGS], "state.pt: this is a state_dict (20 tensors)", "--arch"),
    "arch of no name": (
        ["@/state.pt", *IMGS, "--arch", f"{ARCH}:resnet2"],
        f"--arch {ARCH}:resnet2: {ARCH} has no resnet2",
        "`resnet20`",
    ),
    "arch that does not fit": (
        ["@/state.pt", *IMGS, "--arch", f"{ARCH}:tiny"],
        f"state.pt: does not fit {ARCH}:tiny; of its tensors, ",
        "--arch-kwargs",
    ),
    "malicious pickle": (["@/malicious.pt", *IMGS], "malicious.pt: holds posix.mkdir", "--trust"),
    "NaN weights": (["@/nan.pt", *IMGS], "nan.pt: 1.0.weight holds 9 NaN of 6,912 numbers", "checkpoint"),
    "missing folder": ([MODEL, "--calib", "@/imsg"], "imsg: no such folder", "--calib DIR"),
    "empty folder": ([MODEL, "--calib", "@/empty"], "empty: no images or arrays found", ".png"),
    "broken images": (
        [MODEL, "--calib", "@/broken"],
        "broken: none of the 3 images could be read (first: 0.png: ",
        "intact images",
    ),
    "grey images": (
        [MODEL, "--calib", "@/grey"],
        "grey: all 3 images are greyscale (1 channel), the model expects 3 channels",
        "--convert",
    ),
    "RGBA images": (
        [MODEL, "--calib", "@/rgba"],
        "rgba: all 3 images are colour with alpha (4 channels), the model expects 3 channels",
        "--convert",
    ),
    "arrays of the wrong size": (
        ["@/program.pt2", "--calib", "@/arrays"],
        "a.npy: found samples of shape 3×9×9, the model expects 3×8×8",
        "N×3×8×8",
    ),
    "images of many sizes": (
        [MODEL, "--calib", "@/sizes"],
        "model.pt: the file does not say how large its input is, and the images in sizes are of different sizes",
        "`--input-size 3,224,224`",
    ),
    "keep 0": ([MODEL, *IMGS, "--keep", "0"], "--keep 0: expected a fraction above 0 and at most 1", "`--keep 40%`"),
    "negative keep": ([MODEL, *IMGS, "--keep", "-0.1"], "--keep -0.1: expected a fraction", "`--keep 0.4`"),
    "keep above 1": ([MODEL, *IMGS, "--keep", "1.5"], "--keep 1.5: expected a fraction", "`--keep 0.4`"),
    "keep nan": ([MODEL, *IMGS, "--keep", "nan"], "--keep nan: expected a fraction", "`--keep 0.4`"),
    "input size below 1": (
        [MODEL, *IMGS, "--input-size", "3,-8,8"],
        "--input-size 3,-8,8: expected sizes from 1 up",
        "--input-size 3,224,224",
    ),
    "input size that does not fit": (
        [MODEL, *IMGS, "--input-size", "3,1,1"],
        "torch.export cannot follow the forward pass over an input of shape 3×1×1: ",
        "--input-size",
    ),
    "input size that does not fit a program": (
        ["@/program.pt2", "--calib", "@/grey", "--input-size", "1,8,8", "--preprocess", "unit"],
        "torch.export cannot follow the forward pass over an input of shape 1×8×8: ",
        "--input-size",
    ),
    "unwritable out": ([MODEL, *IMGS, "--out", f"{MODEL}/run"], "--out run: cannot write there", "--out"),
    "freeze that matches nothing": (
        [MODEL, *IMGS, "--freeze", "fc*"],
        "--freeze fc*: matches none of the 7 layers",
        "layers are named like 0.0, 0.1, 1.0",
    ),
    "freeze everything": ([MODEL, *IMGS, "--freeze", "*"], "nothing can be pruned: --freeze *", "--freeze"),
    "unreachable keep": ([MODEL, *IMGS, "--keep", "0.0001"], "--keep 0.0001: not reachable", "use `--keep 0.0"),
    "no GPU": ([MODEL, *IMGS, "--device", "cuda"], "--device cuda: torch finds no such device", "`--device auto`"),
}


@dataclass(frozen=True)
class Refusals:
    """Runs commands that are expected to fail; `temporary` is their folder for temporary files."""

    inputs: Path
    temporary: Path
    server: Server

    def attempt(self, name: str, cwd: Path) -> Done:
        """Run a command of REFUSED in a folder."""
        args = [argument.replace("@", str(self.inputs)) for argument in REFUSED[name][0]]
        return self.server.run("compress", *args, cwd=cwd)


@pytest.fixture(scope="module")
def refusals(inputs: Path) -> Refusals:
    if not CAN_FORK:
        pytest.skip("no fork here")
    temporary = inputs.parent / "temporary"
    temporary.mkdir()
    env = ENV | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(inputs)]), "TMPDIR": str(temporary)}
    return Refusals(inputs, temporary, Server(env, PRUNING))


def left_in(temporary: Path) -> list[str]:
    """What pfp left in a folder for temporary files; torch makes an empty one there whenever it is imported."""
    return [entry for entry in os.listdir(temporary) if not entry.startswith("torchinductor")]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[NO_CUDA] * (name == "no GPU")) for name in REFUSED])
def test_bad_input_gets_one_line_and_a_hint_and_leaves_nothing_behind(
    name: str, refusals: Refusals, tmp_path: Path
) -> None:
    _, message, hint = REFUSED[name]
    done = refusals.attempt(name, tmp_path)
    assert (done.code, done.out) == (2, ""), done.err
    refusal = re.fullmatch(r"(?:  .*\n)*error: (.+)\n\nhint: (.+)\n", done.err)
    assert refusal is not None, done.err
    assert refusal[1].startswith(message)
    assert hint in refusal[2]
    assert str(refusals.inputs) not in done.err
    assert str(tmp_path) not in done.err
    assert "bug" not in done.err
    assert os.listdir(tmp_path) == []
    assert left_in(refusals.temporary) == []


def test_a_malicious_pickle_does_no_harm(inputs: Path, tmp_path: Path) -> None:
    shutil.copy(inputs / "malicious.pt", tmp_path / "model.pt")
    assert pfp("compress", "model.pt", "--calib", str(inputs / "imgs"), cwd=tmp_path).code == 2
    assert not (inputs / "harm").exists()
    torch.load(inputs / "malicious.pt", weights_only=False)
    assert (inputs / "harm").exists()


def test_the_smallest_budget_that_a_refusal_names_can_be_had(refusals: Refusals, tmp_path: Path) -> None:
    refused = refusals.attempt("unreachable keep", tmp_path).err
    named = re.search(r"the smallest valid network keeps (0\.\d+) of the parameters", refused)
    assert named is not None, refused
    assert f"use `--keep {named[1]}` or more" in refused
    run = compress(refusals.inputs / "model.pt", refusals.inputs / "imgs", tmp_path / "run", keep=float(named[1]))
    assert all(group.kept == 1 for group in run.groups if not group.frozen_reason)


@pytest.mark.parametrize("settings", [{"keep": 0.0}, {"seed": -1}, {"input_size": [0, 8, 8]}], ids=str)
def test_the_library_call_refuses_what_the_command_refuses(
    settings: dict[str, Any], small: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"^--{next(iter(settings)).replace('_', '-')} "):
        compress(small / "model.pt", small / "imgs", tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def begins(typed: Typed, tmp_path: Path) -> Callable[[str, int], Callable[[], int]]:
    """Begins a run in work/ that says what it does in a pipe; returns what ends it and returns its exit code."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    line = ["compress", str(typed.folder / "model.pt"), "--calib", str(typed.folder / "imgs")]
    line += ["--criterion", "l2", "--allocate", "uniform", "--recover", "none"]

    def fresh(said: int) -> Callable[[], int]:
        with (tmp_path / "out").open("w") as out:
            env = ENV | {"TMPDIR": str(temporary)}
            process = subprocess.Popen(
                [sys.executable, "-m", "pfpcli", *line], cwd=work, env=env, stdout=out, stderr=said
            )

        def end() -> int:
            process.send_signal(signal.SIGINT)
            return process.wait(60)

        return end

    def by_fork(said: int) -> Callable[[], int]:
        def compress() -> int:
            os.chdir(work)
            tempfile.tempdir = str(temporary)
            sys.stdout = (tmp_path / "out").open("w")
            sys.stderr = open(said, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - ends with the process
            code = cli.run([*line, "--threads", "1"])
            sys.stdout.flush()
            return code

        child = begun(compress)

        def end() -> int:
            os.kill(child, signal.SIGINT)
            return ended(child)

        return end

    # imports are interrupted as well in a process that has none
    return lambda step, said: (fresh if step == "trace" else by_fork)(said)


@pytest.mark.skipif(not CAN_FORK, reason="signals and forks")
@pytest.mark.parametrize("step", ["trace", "evaluate"])
def test_an_interrupted_run_leaves_nothing_behind(
    step: str, begins: Callable[[str, int], Callable[[], int]], tmp_path: Path
) -> None:
    heard, said = os.pipe()
    end = begins(step, said)
    os.close(said)
    with open(heard, encoding="utf-8") as stream:
        seen = list(itertools.takewhile(lambda text: not text.startswith(f"  {step} "), stream))
        assert seen
        code = end()  # in the middle of what comes next
        err = stream.read()
    # CPython ends itself by the signal if it arrived inside exec(); a shell says 130 either way
    assert code in (130, -signal.SIGINT)
    assert (tmp_path / "out").read_text() == ""
    assert err.endswith("\n\nhint: go on with `pfp compress --resume pfp-runs/model-keep0.50`\n")
    assert os.listdir(tmp_path / "work") == []
    assert left_in(tmp_path / "temporary") == []


def test_an_interrupt_that_an_import_turned_into_an_error_is_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    monkeypatch.setattr(Session, "run", interrupted)
    assert cli.run(["compress", "model.pt", "--calib", "imgs"]) == 130
    assert capsys.readouterr().err == "interrupted; no unfinished run was written\n"
