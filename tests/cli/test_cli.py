"""The command line, mostly as a user meets it: as a process, with what it prints where and how it exits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pfpcli
from forked import CAN_FORK, Server
from pfpcli.amounts import COUNTED
from pfpcli.cli import main as cli
from pfpcli.cli import terminal as terminal_console
from pfpcli.errors import BudgetError, CheckFailed, InputError
from pfpcli.progress import Console
from pfpcli.records.runs import Run
from pfpcli.settings import CompressSettings
from pfpcli.settings.max_drop import MaxDrop
from runs import failed, run

ENV = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(Path(pfpcli.__file__).parents[1]), str(Path(__file__).parents[1])]),
    "PYTHONIOENCODING": "utf-8",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "100",
}
for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "PFP_NO_PROGRESS"):
    ENV.pop(name, None)

#: A pipeline without torch, for processes: it writes a run folder, and waits in the middle if WAIT is set.
FAKE = """
import os, sys, time, types
import runs
from pfpcli.records.folders import run_folder

def compress(settings, console):
    with run_folder(settings.out, settings.name) as folder:
        with console.step("load") as step:
            step.summary = "model.pt · 3×32×32"
        console.warn("2 images were skipped")
        with console.step("score") as step:
            for done in range(5):
                step.progress(done, 4, "images")
                time.sleep(0.05)
            step.summary = "4 images"
        print("a library talks")
        time.sleep(float(os.environ.get("WAIT", "0")))
        made = runs.run()
        (folder.path / "run.json").write_text(made.json(), encoding="utf-8")
    return types.SimpleNamespace(record=made, folder=folder.name)

sys.modules["pfpcli.jobs.compress"] = types.ModuleType("pfpcli.jobs.compress")
sys.modules["pfpcli.jobs.compress"].compress = compress
"""
#: The command with this pipeline, as a program.
FAKE_PFP = [sys.executable, "-c", f"{FAKE}\nfrom pfpcli.cli.main import main\nmain()"]
COMPRESS = ["compress", "model.pt", "--calib", "imgs"]


def pfp(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder; in a process that imports everything if it has variables of its own."""
    return _run([sys.executable, "-m", "pfpcli"], "", args, cwd, env)


def fake_pfp(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same with the pipeline of `FAKE`."""
    return _run(FAKE_PFP, FAKE, args, cwd, env)


def _run(
    program: list[str], prepare: str, args: tuple[str, ...], cwd: Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    if not env and CAN_FORK:
        done = Server(ENV, prepare).run(*args, cwd=cwd)
        return subprocess.CompletedProcess(args, done.code, done.out, done.err)
    command = [*program, *args]
    return subprocess.run(command, cwd=cwd, env=ENV | env, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A folder with one run in pfp-runs/model-keep0.55."""
    folder = tmp_path / "pfp-runs" / "model-keep0.55"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(run().json(), encoding="utf-8")
    return tmp_path


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], list[CompressSettings]]:
    """Installs a pipeline that returns a run or raises an exception; returns the settings it was called with."""
    monkeypatch.chdir(tmp_path)
    for variable in ("FORCE_COLOR", "PFP_NO_PROGRESS"):
        monkeypatch.delenv(variable, raising=False)

    def install(outcome: Run | BaseException) -> list[CompressSettings]:
        seen: list[CompressSettings] = []

        def compress(settings: CompressSettings, console: Console) -> types.SimpleNamespace:
            seen.append(settings)
            with console.step("load") as step:
                step.summary = "model.pt"
                if isinstance(outcome, BaseException):
                    raise outcome
            return types.SimpleNamespace(record=outcome, folder="pfp-runs/model-keep0.50", module=None)

        module = types.ModuleType("pfpcli.jobs.compress")
        module.compress = compress  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "pfpcli.jobs.compress", module)
        return seen

    return install


# --- the surface ---------------------------------------------------------------------------------------------------


def test_pfp_alone_prints_the_help_and_exits_0(tmp_path: Path) -> None:
    alone, asked = pfp(cwd=tmp_path), pfp("--help", cwd=tmp_path)
    assert alone.returncode == 0
    assert alone.stdout == asked.stdout
    assert "compress" in alone.stdout
    assert "report" in alone.stdout
    assert alone.stderr == ""


@pytest.mark.parametrize("flag", ["-V", "--version"])
def test_the_version_is_printed_to_stdout(flag: str, tmp_path: Path) -> None:
    done = pfp(flag, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"pfp {pfpcli.__version__}\n")


@pytest.mark.parametrize("command", list(cli.EXAMPLES))
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_every_command_has_help_that_ends_with_examples(command: str, flag: str, tmp_path: Path) -> None:
    done = pfp(command, flag, cwd=tmp_path)
    assert done.returncode == 0
    assert f"Usage: pfp {command}" in done.stdout
    tail = done.stdout[done.stdout.index("Examples:") :]
    assert all(example in tail for example in cli.EXAMPLES[command])


def test_the_examples_fit_eighty_columns() -> None:
    assert all(len(example) <= 78 for examples in cli.EXAMPLES.values() for example in examples)


def test_the_help_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')", encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), ENV["PYTHONPATH"]])
    assert pfp("compress", "--help", cwd=tmp_path, PYTHONPATH=paths).returncode == 0


def test_the_completion_script_is_for_pfp(tmp_path: Path) -> None:
    detection = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = pfp("--show-completion", "bash", cwd=tmp_path, **detection)
    assert done.returncode == 0
    assert "_PFP_COMPLETE" in done.stdout


def test_choices_are_completed(tmp_path: Path) -> None:
    asked = {"_PFP_COMPLETE": "complete_bash", "COMP_WORDS": "pfp compress --keep-of ", "COMP_CWORD": "3"}
    assert pfp(cwd=tmp_path, **asked).stdout.split() == list(COUNTED)


# --- usage errors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["reprot"], "reprot: no such command", "did you mean `pfp report`?"),
        (
            ["sing"],
            "sing: no such command",
            f"use one of {', '.join(cli.EXAMPLES)}; see `pfp --help`",
        ),
        (["--vers"], "--vers: no such option of pfp", "did you mean `--version`?"),
        ([*COMPRESS, "--kep", "1"], "--kep: no such option of pfp compress", "did you mean `--keep`?"),
        ([*COMPRESS, "--keep_of", "macs"], "--keep_of: no such option of pfp compress", "did you mean `--keep-of`?"),
        ([*COMPRESS, "--qqq"], "--qqq: no such option of pfp compress", "see `pfp compress --help`"),
        (["compress"], "MODEL is missing", f"for example `{cli.EXAMPLES['compress'][0]}`"),
        (["compress", "model.pt"], "--calib is missing", f"for example `{cli.EXAMPLES['compress'][0]}`"),
        (
            [*COMPRESS, "--keep-of", "prams"],
            "--keep-of prams: expected one of params, macs, size, latency",
            "did you mean `--keep-of params`?",
        ),
        (
            [*COMPRESS, "--color", "alway"],
            "--color alway: expected one of auto, always, never",
            "did you mean `--color always`?",
        ),
        (
            [*COMPRESS, "--arch-kwargs", "[1]"],
            "--arch-kwargs: expected a JSON object, found [1]",
            """for example `--arch-kwargs '{"num_classes": 10}'`""",
        ),
        (
            [*COMPRESS, "--input-size", "3,x"],
            "--input-size 3,x: expected numbers separated by commas",
            "for example `--input-size 3,224,224`",
        ),
    ],
)
def test_a_usage_error_is_one_line_and_a_hint_on_stderr(
    args: list[str], message: str, hint: str, tmp_path: Path
) -> None:
    done = pfp(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"error: {message}\n\nhint: {hint}\n"


def test_a_file_in_place_of_a_command_is_offered_to_compress(tmp_path: Path) -> None:
    (tmp_path / "my model.pt").touch()
    done = pfp("my model.pt", "--calib", "imgs", cwd=tmp_path)
    assert done.stderr.endswith("hint: to prune it: `pfp compress 'my model.pt' --calib DIR`\n")


def test_broken_json_says_where_it_breaks(tmp_path: Path) -> None:
    done = pfp(*COMPRESS, "--arch-kwargs", "{num_classes: 10}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --arch-kwargs: not JSON (")
    assert "column 2" in done.stderr


@pytest.mark.parametrize("keep", ["0", "-1", "1.5", "nan", "inf", "abc", "140%", ""])
def test_a_keep_ratio_that_cannot_be_is_refused(
    keep: str, pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = pipeline(run())
    assert cli.run([*COMPRESS, "--keep", keep]) == 2
    text = capsys.readouterr().err
    assert text.startswith("error: --keep")
    assert "\n\nhint: keep two fifths" in text
    assert not seen


@pytest.mark.parametrize(("keep", "value"), [("0.4", 0.4), ("40%", 0.4), ("40 %", 0.4), ("1", 1.0), ("4e-1", 0.4)])
def test_a_keep_ratio_may_be_a_fraction_or_a_percentage(
    keep: str, value: float, pipeline: Callable[[Any], list[CompressSettings]]
) -> None:
    seen = pipeline(run())
    assert cli.run([*COMPRESS, "--keep", keep]) == 0
    assert seen[0].keep == pytest.approx(value)


@pytest.mark.parametrize("flag", ["--samples", "--threads", "--steps", "--multiple-of", "--min-channels", "--seed"])
def test_counts_are_whole_numbers(
    flag: str, pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(run())
    assert cli.run([*COMPRESS, flag, "1.5"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {flag}: ")


# --- flags and settings --------------------------------------------------------------------------------------------


def test_without_flags_everything_is_the_default_of_the_settings(
    pipeline: Callable[[Any], list[CompressSettings]],
) -> None:
    seen = pipeline(run())
    assert cli.run(COMPRESS) == 0
    assert seen == [CompressSettings(model=Path("model.pt"), calib=Path("imgs"))]


def test_every_setting_has_a_flag(pipeline: Callable[[Any], list[CompressSettings]]) -> None:
    given = {
        "keep": "0.25",
        "keep_of": "macs",
        "criterion": "pfp-mixed",
        "reduce": "max",
        "delta": "1e-9",
        "samples": "7",
        "allocate": "uniform",
        "steps": "3",
        "recover": "mean,distill",
        "epochs": "4",
        "minutes": "1.5",
        "freeze": "head*",
        "multiple_of": "8",
        "min_channels": "2",
        "arch": "torchvision:resnet18",
        "arch_kwargs": '{"num_classes": 10}',
        "input_size": "3,32,64",
        "preprocess": "unit",
        "mean": "-0.5,0.1,0",
        "std": "1,2,3e-1",
        "resize": "40x50",
        "eval": "test",
        "classes": "names.txt",
        "labels": "labels.csv",
        "where": "inside",
        "output": "scores=probabilities:2",
        "task": "detect",
        "metric": "map.py:score",
        "max_drop": "2%",
        "out": "small",
        "device": "cpu",
        "threads": "1",
        "seed": "3",
    }
    flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
    expected = CompressSettings(
        model=Path("model.pt"),
        calib=Path("imgs"),
        keep=0.25,
        keep_of="macs",
        criterion="pfp-mixed",
        reduce="max",
        delta=1e-9,
        samples=7,
        allocate="uniform",
        steps=3,
        recover=("mean", "distill"),
        epochs=4,
        minutes=1.5,
        freeze=("head*", "stem"),
        multiple_of=8,
        min_channels=2,
        arch="torchvision:resnet18",
        arch_kwargs={"num_classes": 10},
        trust=True,
        exact_only=True,
        strict=True,
        cache=False,
        int8=True,
        fp16=True,
        robustness=True,
        input_size=(3, 32, 64),
        preprocess="unit",
        mean=(-0.5, 0.1, 0.0),
        std=(1.0, 2.0, 0.3),
        resize="40x50",
        convert=True,
        output=("scores=probabilities:2",),
        task="detect",
        metric="map.py:score",
        max_drop=MaxDrop(0.02),
        labels=Path("labels.csv"),
        eval=Path("test"),
        classes=Path("names.txt"),
        where="inside",
        out=Path("small"),
        device="cpu",
        threads=1,
        seed=3,
    )
    switches = {"trust", "convert", "exact_only", "strict", "cache", "int8", "fp16", "robustness"}
    others = {"model", "calib", "epsilon", "plan", *COUNTED, "latency_table", *switches}
    assert set(given) | others == set(CompressSettings.__dataclass_fields__) - {"origins"}
    seen = pipeline(run())
    on = ["--trust", "--convert", "--exact-only", "--strict", "--no-cache", "--int8", "--fp16", "--robustness"]
    assert cli.run([*COMPRESS, *flags, "--freeze", "stem", *on]) == 0
    assert seen == [expected]


def test_an_error_may_be_given_instead_of_a_fraction(
    pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = pipeline(run())
    assert cli.run([*COMPRESS, "--epsilon", "0.1"]) == 0
    assert seen == [CompressSettings(model=Path("model.pt"), calib=Path("imgs"), epsilon=0.1)]
    assert cli.run([*COMPRESS, "--epsilon", "0.1", "--keep", "0.4"]) == 2
    assert capsys.readouterr().err.endswith("error: --keep 0.4 --epsilon 0.1: two budgets\n\nhint: give one of them\n")


def test_the_library_call_takes_the_same_settings(pipeline: Callable[[Any], list[CompressSettings]]) -> None:
    made = run()
    seen = pipeline(made)
    result = pfpcli.compress("model.pt", "imgs", keep=0.3, mean=[0.5], out="small", seed=2)
    assert result.record is made
    assert result.folder == Path("pfp-runs/model-keep0.50")
    assert result.onnx == Path("pfp-runs/model-keep0.50/model.onnx")
    assert seen == [
        CompressSettings(model=Path("model.pt"), calib=Path("imgs"), keep=0.3, mean=(0.5,), out=Path("small"), seed=2)
    ]


# --- exit codes and errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "code", "text"),
    [
        (InputError("a.pt: no such file", "check the path"), 2, "error: a.pt: no such file\n\nhint: check the path\n"),
        (BudgetError("--keep 0.01: not reachable"), 2, "error: --keep 0.01: not reachable\n"),
        (CheckFailed("model.onnx: gives other outputs"), 1, "error: model.onnx: gives other outputs\n"),
        (
            KeyboardInterrupt(),
            130,
            "interrupted; no unfinished run was written\n\n"
            "hint: go on with `pfp compress --resume pfp-runs/model-keep0.50`\n",
        ),
        (
            RuntimeError("shape mismatch\n  in line two"),
            2,
            "error: this is a bug in pfp: RuntimeError: shape mismatch in line two\n\n"
            "hint: run it again with -v, and report it with what that prints\n",
        ),
        (
            OSError(28, "No space left on device", "/somewhere/model.onnx"),
            2,
            "error: model.onnx: No space left on device\n\nhint: run it again with -v to see where\n",
        ),
    ],
    ids=["input", "budget", "check", "interrupt", "bug", "system"],
)
def test_an_exception_becomes_text_and_an_exit_code(
    outcome: BaseException,
    code: int,
    text: str,
    pipeline: Callable[[Any], list[CompressSettings]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pipeline(outcome)
    assert cli.run(COMPRESS) == code
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == text


def test_with_v_the_traceback_is_shown(
    pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(RuntimeError("shape mismatch"))
    assert cli.run([*COMPRESS, "-v"]) == 2
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert text.endswith("hint: report it with the lines above\n")


def test_a_file_name_cannot_write_escape_sequences_into_an_error(
    pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(InputError("a\x1b[2J.pt: no such file"))
    cli.run(COMPRESS)
    assert capsys.readouterr().err == "error: a?[2J.pt: no such file\n"


def test_a_run_that_failed_a_check_exits_1_and_says_so(
    pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(failed())
    assert cli.run(COMPRESS) == 1
    assert "FAILED  model.pt: onnx" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["-q", "--json"])
def test_a_failed_run_says_so_on_stderr_where_stdout_does_not(
    flag: str, pipeline: Callable[[Any], list[CompressSettings]], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline(failed())
    assert cli.run([*COMPRESS, flag]) == 1
    assert "FAILED  model.pt: onnx" in capsys.readouterr().err


# --- what is printed where -----------------------------------------------------------------------------------------


def test_compress_talks_on_stderr_and_shows_the_result_on_stdout(tmp_path: Path) -> None:
    done = fake_pfp(*COMPRESS, cwd=tmp_path)
    assert done.returncode == 0
    load, score, *rest = done.stderr.splitlines()
    assert load.startswith("  load       model.pt · 3×32×32    ")
    assert len(load) == 80
    assert score.startswith("  score      4 images    ")
    assert rest == ["a library talks", "warning: 2 images were skipped", ""]
    assert done.stdout.startswith("                before     after   change\n")
    assert done.stdout.endswith("\nwrote pfp-runs/model-keep0.50/    next: pfp report, or open report.html\n")


def test_json_is_all_there_is_on_stdout_and_equals_the_record(tmp_path: Path) -> None:
    done = fake_pfp(*COMPRESS, "--json", "--out", "small", cwd=tmp_path)
    printed = json.loads(done.stdout)
    assert printed.pop("folder") == "small"
    assert printed == json.loads((tmp_path / "small" / "run.json").read_text(encoding="utf-8"))
    assert "score" in done.stderr


def test_quiet_leaves_the_warnings_only(tmp_path: Path) -> None:
    done = fake_pfp(*COMPRESS, "-q", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "a library talks\nwarning: 2 images were skipped\n"


def test_without_unicode_everything_is_ascii(tmp_path: Path) -> None:
    done = fake_pfp(*COMPRESS, cwd=tmp_path, PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert (done.stdout + done.stderr).isascii()
    assert "model.pt - 3x32x32" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_takes_the_run_folder_back(sent: signal.Signals, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*FAKE_PFP, *COMPRESS],
        cwd=tmp_path,
        env=ENV | {"WAIT": "60"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert process.stderr is not None
    assert "load" in process.stderr.readline()
    assert list(tmp_path.glob("pfp-runs/.*"))
    process.send_signal(sent)
    _, text = process.communicate(timeout=30)
    assert process.returncode == code
    assert "interrupted; no unfinished run was written\n\nhint: go on with `pfp compress --resume " in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("env", "moves"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "PFP_NO_PROGRESS": "1"}, False)],
    ids=["terminal", "dumb", "asked not to"],
)
def test_a_terminal_sees_a_line_that_counts_and_is_replaced(env: dict[str, str], moves: bool, tmp_path: Path) -> None:
    import pty

    parent, child = pty.openpty()
    done = subprocess.run([*FAKE_PFP, *COMPRESS], cwd=tmp_path, env=ENV | env, stdout=subprocess.PIPE, stderr=child)
    os.close(child)
    text = os.read(parent, 1 << 16).decode()
    os.close(parent)
    assert done.returncode == 0
    assert ("/4 images  " in text) == moves
    assert ("\x1b[2K" in text) == moves
    assert "  score      4 images    " in text
    assert b"\x1b" not in done.stdout


def test_color_can_be_forced_and_forbidden(finished: Path) -> None:
    wanted = pfp("report", "--color", "always", cwd=finished)
    assert wanted.stdout.startswith("\x1b[1;32mPASS\x1b[0m  model.pt")
    refused = pfp("report", "--color", "never", cwd=finished, FORCE_COLOR="1", NO_COLOR="", TERM="xterm")
    assert "\x1b" not in refused.stdout
    forced = pfp("report", cwd=finished, FORCE_COLOR="1", NO_COLOR="", TERM="xterm")
    assert forced.stdout == wanted.stdout
    assert "\x1b" not in pfp("report", cwd=finished, FORCE_COLOR="1", TERM="xterm").stdout
    error = pfp("report", "nothing", "--color", "always", cwd=finished)
    assert error.stderr.startswith("\x1b[1;31merror:\x1b[0m nothing: no run here")


@pytest.mark.parametrize(
    ("elapsed", "gained", "text"),
    [
        (0.0, 0, "  score      128/256 images"),
        (3.0, 123, "  score      128/256 images  41/s  ETA 0:04"),
        (64.0, 128, "  score      128/256 images  2.0/s  ETA 1:04"),
    ],
)
def test_a_running_step_shows_count_rate_and_time_left(elapsed: float, gained: int, text: str) -> None:
    assert terminal_console.counting("score", 128, 256, "images", elapsed, gained) == text


def test_a_running_step_shows_the_time_left_of_the_run_where_it_is_known() -> None:
    line = terminal_console.counting("curves", 50, 100, "% of the groups", 6.0, 50, later=33.5)
    assert line == "  curves     50/100 % of the groups  8.3/s  ETA 0:06, of the run about 0:40"


# --- report --------------------------------------------------------------------------------------------------------


def test_report_shows_the_newest_run(finished: Path) -> None:
    done = pfp("report", cwd=finished)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("PASS  model.pt: 54.6 %")
    assert "\n  pfp-runs/model-keep0.55/  model.onnx" in done.stdout


@pytest.mark.parametrize("named", ["pfp-runs/model-keep0.55", "pfp-runs/model-keep0.55/run.json"])
def test_report_takes_a_folder_or_its_record(named: str, finished: Path) -> None:
    assert pfp("report", named, cwd=finished).stdout == pfp("report", cwd=finished).stdout


def test_report_all_shows_every_layer(finished: Path) -> None:
    assert "layer1.0.conv1" in pfp("report", "--all", cwd=finished).stdout
    assert "layer1.0.conv1" not in pfp("report", cwd=finished).stdout


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_report_json_is_the_file_byte_for_byte(encoding: str, finished: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pfpcli", "report", "--json"],
        cwd=finished,
        env=ENV | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert done.stdout == (finished / "pfp-runs" / "model-keep0.55" / "run.json").read_bytes()


@pytest.mark.parametrize(
    ("flags", "beginning"),
    [
        (["--html"], b"<!doctype html>\n"),
        (["--md"], b"**PASS** model.pt: 54.6 % of the parameters"),
        (["--csv", "layers"], b"layer,op,in_before,"),
    ],
    ids=["html", "md", "csv"],
)
def test_report_prints_a_format_in_utf8_and_nothing_else(flags: list[str], beginning: bytes, finished: Path) -> None:
    command = [sys.executable, "-m", "pfpcli", "report", *flags]
    env = ENV | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=finished, env=env, capture_output=True, check=True)
    assert done.stdout.startswith(beginning)
    assert done.stdout.endswith(b"\n")
    assert done.stderr == b""


@pytest.mark.parametrize("flags", [("--html", "--md"), ("--md", "--json"), ("--html", "--csv", "layers", "--json")])
def test_report_prints_one_format_at_a_time(flags: tuple[str, ...], finished: Path) -> None:
    done = pfp("report", *flags, cwd=finished)
    names = [flag for flag in flags if flag.startswith("--")]
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.split(":")[1].split()) == sorted(names)
    assert done.stderr.endswith(f"{len(names)} formats\n\nhint: give one of them\n")


def test_a_table_that_there_is_not_is_refused_with_those_that_there_are(finished: Path) -> None:
    done = pfp("report", "--csv", "layer", cwd=finished)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --csv layer: expected one of layers\n\nhint: did you mean `--csv layers`?")


def test_broken_details_are_an_error_of_the_page_alone(finished: Path) -> None:
    (finished / "pfp-runs" / "model-keep0.55" / "details.json").write_text('{"groups": 7}', encoding="utf-8")
    assert pfp("report", cwd=finished).returncode == 0
    done = pfp("report", "--html", cwd=finished)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "error: model-keep0.55: details.json: groups: expected array, found int\n\nhint: remove"
    )


def test_report_of_a_failed_run_is_a_success_of_the_report(finished: Path) -> None:
    file = finished / "pfp-runs" / "model-keep0.55" / "run.json"
    file.write_text(failed().json(), encoding="utf-8")
    done = pfp("report", cwd=finished)
    assert done.returncode == 0
    assert done.stdout.startswith("FAILED  model.pt: onnx ≠ torch")


def test_report_without_a_run_says_how_to_make_one(tmp_path: Path) -> None:
    done = pfp("report", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no run in pfp-runs/ of this folder\n\nhint: make one with `pfp compress ")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 99}'])
def test_report_of_a_broken_record_is_an_error_with_a_hint(text: str, finished: Path) -> None:
    (finished / "pfp-runs" / "model-keep0.55" / "run.json").write_text(text, encoding="utf-8")
    done = pfp("report", cwd=finished)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: model-keep0.55: ")
    assert "\n\nhint: " in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="pipes")
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_a_reader_that_leaves_early_is_no_error(flags: list[str], finished: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "pfpcli", "report", *flags],
        cwd=finished,
        env=ENV,
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_an_error_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pfpcli", "report"]
    done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=writing, check=False)
    os.close(writing)
    assert (done.returncode, done.stdout) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_under_stdout_is_said(finished: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pfpcli", "report"],
            cwd=finished,
            env=ENV,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: No space left on device\n")
