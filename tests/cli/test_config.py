"""The config file: defaults of options in pfp.toml or pyproject.toml, and where each setting came from."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest
import typer

from pfpcli.cli import main as cli
from pfpcli.cli.app import app
from pfpcli.progress import Console
from pfpcli.settings import CompressSettings, FinetuneSettings
from pfpcli.settings.max_drop import MaxDrop
from runs import run

COMPRESS = ["compress", "model.pt", "--calib", "imgs"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings with which jobs were called; the jobs do nothing."""
    seen: list[Any] = []
    for name in ("compress", "finetune"):

        def job(settings: Any, console: Console) -> types.SimpleNamespace:
            seen.append(settings)
            return types.SimpleNamespace(record=run(), folder="there", module=None)

        module = types.ModuleType(f"pfpcli.jobs.{name}")
        setattr(module, name, job)
        monkeypatch.setitem(sys.modules, f"pfpcli.jobs.{name}", module)
    return seen


def write(content: str, name: str = "pfp.toml") -> None:
    Path(name).write_text(content, encoding="utf-8")


def compressed(made: list[Any], *flags: str) -> CompressSettings:
    assert cli.run([*COMPRESS, *flags, "-q"]) == 0
    settings: CompressSettings = made[-1]
    return settings


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert cli.run(args or COMPRESS) == 2
    return capsys.readouterr().err


def shown(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, tuple[str, str]]:
    """Setting -> (value, origin), as --show-settings prints them."""
    assert cli.run([*args, "--show-settings"]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: (line.split()[1], " ".join(line.split()[2:])) for line in lines}


def test_a_file_gives_defaults_and_the_command_line_wins(made: list[Any]) -> None:
    write('keep = 0.3\ncriterion = "l1"\nseed = 4\n')
    settings = compressed(made, "--seed", "5")
    assert (settings.keep, settings.criterion, settings.seed) == (0.3, "l1", 5)
    assert settings.origins == {
        "model": "command line",
        "calib": "command line",
        "keep": "pfp.toml",
        "criterion": "pfp.toml",
        "seed": "command line",
        "quiet": "command line",
    }


def test_the_table_of_a_command_comes_before_the_keys_for_all(made: list[Any]) -> None:
    write("[compress]\nkeep = 0.2\n[score]\nsamples = 7\n")
    assert compressed(made).keep == 0.2
    write("[tool.pfp.compress]\nkeep = 0.2\n[tool.pfp]\nkeep = 0.3\nseed = 1\n", "pyproject.toml")
    Path("pfp.toml").unlink()
    settings = compressed(made)
    assert (settings.keep, settings.seed, settings.samples) == (0.2, 1, None)
    assert settings.origins["keep"] == "pyproject.toml [tool.pfp.compress]"
    assert settings.origins["seed"] == "pyproject.toml [tool.pfp]"


def test_pfp_toml_comes_before_pyproject_toml(made: list[Any]) -> None:
    write("[tool.pfp]\nkeep = 0.2\nseed = 1\n", "pyproject.toml")
    write("keep = 0.3\n")
    assert (compressed(made).keep, made[-1].seed) == (0.3, 0)


@pytest.mark.parametrize("content", ["", "[project]\nname = 'x'\n", "[tool.ruff]\nkeep = 1\n"])
def test_a_pyproject_of_another_tool_changes_nothing(content: str, made: list[Any]) -> None:
    write(content, "pyproject.toml")
    assert set(compressed(made).origins.values()) == {"command line"}


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('keep = "40%"', "keep", 0.4),
        ("keep = 1", "keep", 1.0),
        ("input-size = [3, 32, 32]", "input_size", (3, 32, 32)),
        ('input-size = "3,32,32"', "input_size", (3, 32, 32)),
        ("mean = [0.5, 0.4, 0.3]", "mean", (0.5, 0.4, 0.3)),
        ('recover = ["lsq", "bn"]', "recover", ("lsq", "bn")),
        ('recover = "none"', "recover", ()),
        ('freeze = "head*"', "freeze", ("head*",)),
        ('freeze = ["head*", "stem"]', "freeze", ("head*", "stem")),
        ("no-cache = true", "cache", False),
        ("convert = false", "convert", False),
        ('eval = "test"', "eval", Path("test")),
        ("minutes = 3\nrecover = ['distill']", "minutes", 3.0),
        ('arch = "timm:resnet18"', "arch", "timm:resnet18"),
        ("arch-kwargs = { num_classes = 10 }", "arch_kwargs", {"num_classes": 10}),
        ("max-drop = 0.01", "max_drop", MaxDrop(0.01)),
    ],
)
def test_values_are_written_as_toml_has_them(line: str, name: str, value: Any, made: list[Any]) -> None:
    write(line)
    settings = compressed(made)
    assert getattr(settings, name) == value
    assert settings.origins[name] == "pfp.toml"


def test_a_flag_replaces_a_value_of_the_file_that_it_excludes(made: list[Any]) -> None:
    write("keep = 0.3")
    planned = compressed(made, "--plan", "plan.json")
    assert (planned.plan, planned.keep) == (Path("plan.json"), None)
    settings = compressed(made, "--epsilon", "0.5")
    assert settings.epsilon == 0.5
    assert "keep" not in settings.origins
    write("epsilon = 0.5")
    settings = compressed(made, "--keep", "0.3")
    assert (settings.keep, settings.epsilon) == (0.3, None)


def test_two_values_of_the_file_that_exclude_each_other_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("keep = 0.3\nepsilon = 0.5")
    assert "error: pfp.toml: keep 0.3 --epsilon 0.5: two budgets" in refused(capsys)


def test_a_required_flag_may_stand_in_the_file(made: list[Any]) -> None:
    write('calib = "imgs"')
    assert cli.run(["compress", "model.pt", "-q"]) == 0
    assert made[-1].calib == Path("imgs")


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        ("kepp = 0.3", "pfp.toml: unknown key kepp", "did you mean `keep`?"),
        ("keep_of = 'macs'", "pfp.toml: unknown key keep_of", "did you mean `keep-of`?"),
        ("[compres]\nkeep = 1", "pfp.toml: unknown key compres", "did you mean `compress`?"),
        ("[score]\nkeep = 1", "pfp.toml [score]: unknown key keep", ""),
        ("[compress]\nnothing-like-it = 1", "pfp.toml [compress]: unknown key nothing-like-it", "names of flags"),
        ("samples = 'many'", "pfp.toml: samples = 'many': expected a whole number", "for example `samples = 3`"),
        ("samples = 1.5", "pfp.toml: samples = 1.5: expected a whole number", ""),
        ("samples = true", "pfp.toml: samples = True: expected a whole number", ""),
        ("minutes = 'x'", "pfp.toml: minutes = 'x': expected a number", ""),
        ("convert = 1", "pfp.toml: convert = 1: expected true or false", ""),
        ("calib = 3", "pfp.toml: calib = 3: expected a path in quotes", ""),
        ("freeze = [1]", "pfp.toml: freeze = [1]: expected a text in quotes or a list of them", ""),
        ("keep = { a = 1 }", "pfp.toml: keep = {'a': 1}: expected a text in quotes, a number or a list", ""),
        ("keep = 2", "pfp.toml: keep 2: expected a fraction above 0 and at most 1", ""),
        ("keep-of = 'flops'", "pfp.toml: keep-of flops: expected one of params, macs", ""),
        (
            "[compress]\ndevice = 'gpu'",
            "pfp.toml [compress]: device gpu: expected one of",
            "did you mean `--device cpu`",
        ),
        ("keep = ", "pfp.toml: not a TOML file that can be read (", "mend it, or remove it"),
        ("trust = true", "pfp.toml: trust is for the command line alone", "type `--trust` instead"),
        ("metric = 'a.py:b'", "pfp.toml: metric is for the command line alone", "type `--metric` instead"),
        ("arch = 'models:net'", "pfp.toml: arch = 'models:net' would run a module", "type it: `--arch models:net`"),
    ],
)
def test_what_a_file_may_not_say_is_refused_with_the_name_of_the_file(
    content: str, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(content)
    err = refused(capsys)
    assert err.startswith(f"error: {message}")
    assert hint in err


PROGRAM: Any = typer.main.get_command(app)


@pytest.mark.parametrize("command", list(PROGRAM.commands))
def test_every_flag_of_every_command_is_a_key_or_has_to_be_typed(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for param in PROGRAM.commands[command].params:
        key = next((name[2:] for name in param.opts if name.startswith("--")), None)
        if key is None:
            continue
        # a date fits no flag, so the refusal says what the flag takes
        write(f"[{command}]\n{key} = 2026-01-01\n")
        err = refused(capsys, "report", "gone")
        assert "unknown key" not in err
        assert ": expected " in err or "for the command line alone" in err or "would run a module" in err


def test_an_unknown_key_in_the_table_of_another_command_is_refused_too(capsys: pytest.CaptureFixture[str]) -> None:
    write("[tool.pfp.finetune]\nepoch = 3", "pyproject.toml")
    err = refused(capsys, "report")
    assert "error: pyproject.toml [tool.pfp.finetune]: unknown key epoch\n\nhint: did you mean `epochs`?" in err


def test_a_table_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("[tool]\npfp = 3", "pyproject.toml")
    assert "error: pyproject.toml: tool.pfp is no table" in refused(capsys)


def test_a_wrong_flag_on_the_command_line_is_not_blamed_on_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    write("keep = 0.3")
    assert refused(capsys, *COMPRESS, "--keep", "3").startswith("error: --keep 3: expected a fraction")


@pytest.mark.parametrize("args", [["--help"], ["compress", "--help"], ["compress", "-h"]])
def test_help_is_shown_whatever_the_file_says(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write("kepp = ")
    assert cli.run(args) == 0
    assert "Usage: pfp" in capsys.readouterr().out


def test_settings_are_shown_with_their_origins_and_nothing_runs(
    made: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write('no-cache = true\n[compress]\nkeep = 0.3\nfreeze = ["a", "b"]\n')
    found = shown(capsys, *COMPRESS, "--keep-of", "macs")
    assert made == []
    assert found["keep"] == ("0.3", "pfp.toml [compress]")
    assert found["keep-of"] == ("macs", "command line")
    assert found["cache"] == ("no", "pfp.toml")
    assert found["freeze"] == ("a,b", "pfp.toml [compress]")
    assert found["seed"] == ("0", "default")
    assert found["epsilon"] == ("–", "default")


def test_settings_that_are_wrong_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*COMPRESS, "--keep", "3", "--show-settings"]) == 2
    assert cli.run([*COMPRESS, "--json", "--show-settings"]) == 2
    assert "--json --show-settings: two outputs" in capsys.readouterr().err


def test_settings_that_come_from_a_run_say_so(
    folder: Path, made: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "small").mkdir()
    record = run(settings=run().settings | {"mean": [0.5, 0.5, 0.5], "preprocess": "unit"})
    (folder / "small" / "run.json").write_text(record.json(), encoding="utf-8")
    args = ["finetune", "small", "--data", "train"]
    found = shown(capsys, *args)
    assert found["mean"] == ("0.5,0.5,0.5", "small")
    assert found["calib"] == ("train", "command line")
    write("preprocess = 'imagenet'")
    assert cli.run([*args, "-q"]) == 0
    settings: FinetuneSettings = made[-1]
    assert settings.preprocess == "imagenet"
    assert (settings.origins["preprocess"], settings.origins["mean"]) == ("pfp.toml", "small")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (f"freeze = {'[' * 5000}{']' * 5000}", "pfp.toml: not a TOML file that can be read"),
        (f"seed = {'9' * 5000}", "pfp.toml: not a TOML file that can be read"),
        (f"seed = 0x{'f' * 5000}", "pfp.toml: seed: a number of more than 64 bits"),
        (f"arch = 0x{'f' * 5000}", "pfp.toml: arch: a number of more than 64 bits"),
        (f"mean = [[0x{'f' * 5000}]]", "pfp.toml: mean: a number of more than 64 bits"),
        ("arch-kwargs = {a = 1979-05-27}", "pfp.toml: arch-kwargs: Object of type date is not JSON serializable"),
    ],
    ids=["deep", "long number", "large number", "large name", "large in a list", "date"],
)
def test_a_file_that_python_trips_over_is_refused_in_one_line(
    content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(content)
    assert refused(capsys).startswith(f"error: {said}")
