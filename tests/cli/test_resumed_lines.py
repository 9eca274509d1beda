"""`--resume RUN`: what is kept of a line, what has to be typed again, and what contradicts it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfpcli.cache_folder import cache_folder
from pfpcli.cli import main as cli
from pfpcli.progress import Console
from pfpcli.records.started import OPTIONS

LINE = ["compress", "model.pt", "--calib", "imgs", "--keep", "40%", "--freeze", "a*", "--freeze", "b", "--out", "small"]

Run = Callable[..., str]
BEGIN = Console.step


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a line that is interrupted at once, and returns what it prints; checks the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PFP_CACHE", str(tmp_path / "cache"))

    def interrupted(self: Console, name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "step", interrupted)

    def now(*line: str, code: int = 130) -> str:
        assert cli.run(line) == code
        return "".join(capsys.readouterr())

    return now


def kept() -> dict[str, Any]:
    (file,) = cache_folder().glob(f"unfinished/*/{OPTIONS}")
    return {"file": file, **json.loads(file.read_text(encoding="utf-8"))}


def test_the_last_line_says_what_to_type(run: Run) -> None:
    assert run(*LINE).endswith("\n\nhint: go on with `pfp compress --resume small`\n")
    assert run("compress", "--resume", "small").endswith("hint: go on with `pfp compress --resume small`\n")
    assert run("compress", "--resume=small").endswith("hint: go on with `pfp compress --resume small`\n")


def test_all_settings_are_those_of_the_first_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pfp.toml").write_text("seed = 7\n", encoding="utf-8")
    run(*LINE)
    assert cli.run([*LINE, "--show-settings"]) == 0
    first = capsys.readouterr().out
    Path("pfp.toml").write_text("seed = 8\nthreads = 3\n", encoding="utf-8")
    assert cli.run(["compress", "--resume", "small", "--show-settings"]) == 0
    assert capsys.readouterr().out == first
    assert "40%" not in first
    assert "pfp.toml" in first


def test_a_run_without_a_name_is_named_by_its_folder(run: Run) -> None:
    assert "--resume pfp-runs/model-keep0.50`" in run("compress", "model.pt", "--calib", "imgs")
    run("compress", "--resume", "pfp-runs/model-keep0.50")
    run("compress", "--resume", "model-keep0.50")
    assert "--resume pfp-runs/model-sweep`" in run("sweep", "model.pt", "--calib", "imgs", "--keep", "0.5,0.4")
    run("sweep", "--resume", "model-sweep")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["--keep", "0.6"], "error: --keep 0.6: small was started with --keep 40%"),
        (["--int8"], "error: --int8: small was started without --int8"),
        (["--freeze", "a*"], "error: --freeze 'a*': small was started with --freeze 'a*' --freeze b"),
        (["other.pt"], "error: MODEL other.pt: small was started with MODEL model.pt"),
        (["--trust"], "error: --trust: small was started without --trust"),
        (["--metric", "m.py:f"], "error: --metric m.py:f: small was started without --metric"),
    ],
)
def test_a_flag_that_contradicts_the_run_is_refused(typed: list[str], said: str, run: Run) -> None:
    run(*LINE)
    assert run("compress", "--resume", "small", *typed, code=2).startswith(said)
    run("compress", "--resume", "small", "--keep", "40%")


CODE = ["--arch", "nets:tiny", "--arch-kwargs", "{}", "--metric", "m.py:f", "--trust"]


def test_what_runs_code_is_not_kept_and_has_to_be_typed_again(run: Run) -> None:
    Path("m.py").write_text("def f(file, folder):\n    return 1.0\n", encoding="utf-8")
    err = run(*LINE, *CODE)
    assert "go on with `pfp compress --resume small --arch nets:tiny --arch-kwargs '{}' --trust --metric m.py:f`" in err
    text = kept()["file"].read_text(encoding="utf-8")
    assert "nets:tiny" not in text
    assert "m.py" not in text
    err = run("compress", "--resume", "small", *CODE[:-1], code=2)
    assert err.startswith("error: --resume small: it was started with --trust, which is not kept")
    run("compress", "--resume", "small", *CODE)


def test_a_kept_line_cannot_choose_code(run: Run) -> None:
    run(*LINE, "--arch", "torchvision:resnet18")
    found = kept()
    assert found["options"]["arch"] == "torchvision:resnet18"
    file = found.pop("file")
    found["options"] |= {"arch": "evil:net", "metric": "evil.py:f", "trust": True}
    file.write_text(json.dumps(found), encoding="utf-8")
    assert "evil" not in run("compress", "--resume", "small", "--show-settings", code=0)
    assert run("compress", "--resume", "small", "--trust", code=2).startswith(
        "error: --trust: small was started without"
    )


@pytest.mark.parametrize("change", [{"options": {"keep": {}}}, {"schema_version": 2}, {"code": "x"}, None])
def test_a_kept_line_that_pfp_has_not_written_is_none(change: dict[str, Any] | None, run: Run) -> None:
    run(*LINE)
    found = kept()
    file = found.pop("file")
    file.write_text("{" if change is None else json.dumps(found | change), encoding="utf-8")
    assert "--resume small: no run of that name was interrupted" in run("compress", "--resume", "small", code=2)


def test_a_line_that_others_could_have_written_is_none(run: Run) -> None:
    run(*LINE)
    os.chmod(kept()["file"], 0o666)
    assert "no run of that name was interrupted" in run("compress", "--resume", "small", code=2)


def test_a_line_is_private_whatever_the_umask_is(run: Run) -> None:
    before = os.umask(0)
    try:
        run(*LINE)
    finally:
        os.umask(before)
    assert kept()["file"].stat().st_mode & 0o077 == 0
    assert kept()["file"].parent.stat().st_mode & 0o077 == 0
    run("compress", "--resume", "small")


def test_runs_that_cannot_go_on_are_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    err = run("compress", "--resume", "small", code=2)
    assert err == (
        "error: --resume small: no run of that name was interrupted\n\n"
        "hint: nothing was interrupted: type the whole line\n"
    )
    run(*LINE)
    assert "hint: what can go on: small" in run("compress", "--resume", "large", code=2)
    assert "hint: type `pfp sweep" not in run("sweep", "--resume", "small", code=2)
    assert "small: was started by `pfp compress`" in run("sweep", "--resume", "small", code=2)
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "run.json").write_text("{}", encoding="utf-8")
    assert "--resume done: this run has finished\n\nhint: look at it: `pfp report done`" in run(
        "compress", "--resume", "done", code=2
    )
    (tmp_path / "compared").mkdir()
    (tmp_path / "compared" / "comparison.json").write_text("{}", encoding="utf-8")
    said = "--resume compared: this comparison has finished\n\nhint: look at it: compared/comparison.svg"
    assert said in run("compare-criteria", "--resume", "compared", code=2)
    found = kept()
    file = found.pop("file")
    file.write_text(json.dumps(found | {"process": os.getppid()}), encoding="utf-8")
    assert f"--resume small: is running (process {os.getppid()})" in run("compress", "--resume", "small", code=2)
    file.write_text(json.dumps(found), encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert f"hint: go there first: `cd {tmp_path}`" in run("compress", "--resume", "../small", code=2)


def test_the_option_needs_a_run(run: Run) -> None:
    assert "option '--resume' requires an argument" in run("compress", "--resume", code=2)
    assert "MODEL is missing" in run("compress", code=2)


def test_a_line_that_was_wrong_is_forgotten(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Console, "step", BEGIN)
    run(*LINE, code=2)
    assert not list(cache_folder().glob(f"unfinished/*/{OPTIONS}"))
