"""Commands: flags in, settings out; results to stdout, talk to stderr.

Nothing here imports torch before a command needs it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import shlex
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from pfpcli import __version__, record
from pfpcli.errors import INTERRUPTED, NOBODY_READS, CheckFailed, InputError, Interrupted, UnsupportedError
from pfpcli.flags import COLORS, OUTPUT, Color, Json, Verbose, flag, setting, switch
from pfpcli.inspection import Inspection
from pfpcli.report import REPORTS, inspection
from pfpcli.report.terminal import summary, verdict
from pfpcli.settings import Network, Settings, parse_keep, parse_numbers

if TYPE_CHECKING:
    from pfpcli.terminal_console import Output

EXAMPLES = {
    "compress": (
        "pfp compress model.pt --calib ./imgs --keep 0.4",
        "pfp compress weights.pth --arch torchvision:resnet18 --calib ./imgs",
        "pfp compress model.pt --calib ./imgs --keep-of macs --freeze 'head*'",
        "pfp compress model.pt --calib ./imgs --out small --json > run.json",
    ),
    "inspect": (
        "pfp inspect model.pt",
        "pfp inspect weights.pth --arch torchvision:resnet18 --all",
        "pfp inspect model.pt --input-size 3,224,224 --strict",
    ),
    "report": (
        "pfp report",
        "pfp report pfp-runs/model-keep0.40 --all",
        "pfp report --json > run.json",
    ),
}


class _Commands(TyperGroup):
    """The commands; says what was meant where there is none of that name, and lets interrupts through to `run`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            raise InputError(f"{name}: no such command", _meant(name, known))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; click would end quietly on either of these, and with exit codes of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted(INTERRUPTED) from None
        except BrokenPipeError:
            raise Interrupted(NOBODY_READS) from None


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    if close:
        return f"did you mean `pfp {close[0]}`?"
    if Path(name).is_file():
        return f"to prune it: `pfp compress {shlex.quote(name)} --calib DIR`"
    return f"use one of {', '.join(known)}; see `pfp --help`"


class _Command(TyperCommand):
    """A command whose usage is written out: typer's versions put different brackets around arguments."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name of the command."""
        return [self.options_metavar or ""]


app = typer.Typer(
    cls=_Commands,
    help="Prune the channels of a CNN checkpoint by PFP sensitivity and export a smaller network.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pfp {__version__}")
        raise typer.Exit


_INPUT, _CALIBRATION, _BUDGET, _SCORING = "Input", "Calibration images", "Budget", "Scoring"
_CUT, _MACHINE = "What may be cut", "Machine"

# What every command that loads a network has.
_Model = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Checkpoint: a module, state dict, TorchScript or exported program.")
]
_Arch = Annotated[
    str | None,
    flag(_INPUT, "What builds the network of a state dict, e.g. torchvision:resnet18.", metavar="MODULE:FACTORY"),
]
_ArchKwargs = Annotated[str | None, flag(_INPUT, "Keyword arguments for --arch, an object.", metavar="JSON")]
_InputSize = Annotated[str | None, flag(_INPUT, "Needed where the file does not say.", metavar="C,H,W")]
_Trust = Annotated[bool, switch(_INPUT, "Load pickles that may run any code.", "--trust")]
_Freeze = Annotated[
    list[str] | None, flag(_CUT, "Leave layers alone, e.g. 'head*'; may be repeated.", metavar="PATTERN")
]
_ExactOnly = Annotated[
    bool, switch(_CUT, "Leave channels alone that a norm or another statistic is taken across.", "--exact-only")
]
_Strict = Annotated[bool, switch(_CUT, "Refuse networks with ops that have no rule.", "--strict")]


def _examples(command: str) -> str:
    return "\n".join(["Examples:", *EXAMPLES[command]])


@app.callback()
def _global(
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", help="Print the version and exit.", metavar="", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass


@app.command(cls=_Command, options_metavar="MODEL --calib DIR [OPTIONS]", epilog=_examples("compress"))
def compress(
    model: _Model,
    *,
    arch: _Arch = None,
    arch_kwargs: _ArchKwargs = None,
    input_size: _InputSize = None,
    trust: _Trust = False,
    calib: Annotated[Path, flag(_CALIBRATION, "Images, .npy or .npz; class folders are labels.", metavar="DIR")],
    eval: Annotated[
        Path | None,
        flag(_CALIBRATION, "Images to report quality on; otherwise some of --calib are held out.", metavar="DIR"),
    ] = Settings.eval,
    preprocess: Annotated[
        str | None,
        flag(
            _CALIBRATION,
            "imagenet, unit, raw255, none or a TOML file; otherwise imagenet for images, none for arrays.",
            metavar="NAME|FILE",
        ),
    ] = Settings.preprocess,
    mean: Annotated[str | None, flag(_CALIBRATION, "Per channel, over the preset's.", metavar="X,Y,Z")] = None,
    std: Annotated[str | None, flag(_CALIBRATION, "Per channel, over the preset's.", metavar="X,Y,Z")] = None,
    resize: Annotated[
        str | None,
        flag(
            _CALIBRATION,
            "Short side before the centre crop, otherwise that of the input; or a size to stretch to.",
            metavar="S|HxW",
        ),
    ] = Settings.resize,
    convert: Annotated[
        bool, switch(_CALIBRATION, "Convert images with other channels than the model's.", "--convert")
    ] = Settings.convert,
    keep: Annotated[
        str, flag(_BUDGET, "Fraction to keep, above 0 and at most 1, or a percentage.", metavar="R")
    ] = f"{Settings.keep:g}",
    keep_of: Annotated[str, setting(_BUDGET, "keep_of", "What --keep measures.")] = Settings.keep_of,
    multiple_of: Annotated[
        int, flag(_BUDGET, "Round kept channels up to a multiple of N.", metavar="N")
    ] = Settings.multiple_of,
    min_channels: Annotated[
        int, flag(_BUDGET, "Keep at least N channels of a group.", metavar="N")
    ] = Settings.min_channels,
    freeze: _Freeze = None,
    exact_only: _ExactOnly = False,
    strict: _Strict = False,
    criterion: Annotated[str, setting(_SCORING, "criterion", "How channels are scored.")] = Settings.criterion,
    reduce: Annotated[
        str, setting(_SCORING, "reduce", "Sensitivity over the positions of a kernel.")
    ] = Settings.reduce,
    samples: Annotated[
        int | None,
        flag(_SCORING, "Images to score on; otherwise as many as the error bound asks for.", metavar="N"),
    ] = Settings.samples,
    device: Annotated[str, setting(_MACHINE, "device", "Where to compute.")] = Settings.device,
    threads: Annotated[
        int | None, flag(_MACHINE, "CPU threads; otherwise as many as cores.", metavar="N")
    ] = Settings.threads,
    seed: Annotated[int, flag(_MACHINE, "Of every random choice.", metavar="N")] = Settings.seed,
    out: Annotated[
        Path | None, flag(OUTPUT, "Run folder; otherwise one in pfp-runs named after the model.", metavar="DIR")
    ] = Settings.out,
    as_json: Json = False,
    quiet: Annotated[bool, switch(OUTPUT, "Print errors and warnings only.", "-q", "--quiet")] = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> None:
    """Prune MODEL to a fraction of its parameters and write the smaller network to a run folder."""
    settings = Settings(
        **_network(model, arch, arch_kwargs, input_size, trust, freeze, exact_only, strict),
        calib=calib,
        keep=parse_keep(keep),
        keep_of=keep_of,
        criterion=criterion,
        reduce=reduce,
        samples=samples,
        multiple_of=multiple_of,
        min_channels=min_channels,
        preprocess=preprocess,
        mean=None if mean is None else parse_numbers("--mean", mean, float),
        std=None if std is None else parse_numbers("--std", std, float),
        resize=resize,
        convert=convert,
        eval=eval,
        out=out,
        device=device,
        threads=threads,
        seed=seed,
    )
    talk = output(sys.stderr, color)
    finished, folder = _run("compress", settings, talk, quiet=quiet, verbose=verbose)
    if as_json:
        _print_json(finished)
    elif not quiet:
        talk.write("")
        _print_summary(finished, folder, color)
    if finished.status != "ok":
        if as_json or quiet:
            talk.write(verdict(finished))
        raise typer.Exit(1)


@app.command(cls=_Command, options_metavar="MODEL [OPTIONS]", epilog=_examples("inspect"))
def inspect(
    model: _Model,
    *,
    arch: _Arch = None,
    arch_kwargs: _ArchKwargs = None,
    input_size: _InputSize = None,
    trust: _Trust = False,
    freeze: _Freeze = None,
    exact_only: _ExactOnly = False,
    strict: _Strict = False,
    everything: Annotated[bool, switch(OUTPUT, "Show all groups, where they sit, and all ops.", "--all")] = False,
    as_json: Json = False,
    quiet: Annotated[bool, switch(OUTPUT, "Print the result alone.", "-q", "--quiet")] = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> None:
    """Show what can be cut from MODEL, what cannot, and why. Nothing is written."""
    settings = Network(**_network(model, arch, arch_kwargs, input_size, trust, freeze, exact_only, strict))
    found = _run("inspect", settings, output(sys.stderr, color), quiet=quiet, verbose=verbose)
    if as_json:
        _print_json(found)
    else:
        page = output(sys.stdout, color)
        page.write(inspection.render(found, width=_width(), everything=everything, unicode=page.unicode).rstrip("\n"))
    if all(group.frozen_reason for group in found.groups):
        raise UnsupportedError(f"{found.model['name']}: nothing in it can be pruned", "the reasons stand above")
    if strict and found.unknown:
        raise CheckFailed(f"--strict: no rule for {', '.join(found.unknown)}", "what touches them was frozen")


@app.command(cls=_Command, options_metavar="[RUN] [OPTIONS]", epilog=_examples("report"))
def report(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run folder or its run.json; otherwise the newest in pfp-runs."),
    ] = None,
    everything: Annotated[
        bool, switch(OUTPUT, "Show all layers, names and reasons, and how the run was made.", "--all")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> None:
    """Show what a run did: what was asked and achieved, where it was saved, and what was left alone."""
    path = run or record.newest()
    found = record.read(path)
    if as_json:
        _print_json(found)
        return
    page = output(sys.stdout, color)
    folder = str(path if path.is_dir() else path.parent)
    text = REPORTS["terminal"](found, folder=folder, width=_width(), everything=everything, unicode=page.unicode)
    page.write(text.removesuffix("\n"))


def _network(
    model: Path,
    arch: str | None,
    arch_kwargs: str | None,
    input_size: str | None,
    trust: bool,
    freeze: list[str] | None,
    exact_only: bool,
    strict: bool,
) -> dict[str, Any]:
    """The settings that every command with a network has."""
    return {
        "model": model,
        "arch": arch,
        "arch_kwargs": None if arch_kwargs is None else _json_object("--arch-kwargs", arch_kwargs),
        "input_size": None if input_size is None else parse_numbers("--input-size", input_size, int),
        "trust": trust,
        "freeze": tuple(freeze or ()),
        "exact_only": exact_only,
        "strict": strict,
    }


def _run(name: str, settings: Network, talk: Output, *, quiet: bool, verbose: bool) -> Any:
    """Go one of the pipeline's roads with its steps on stderr; the warnings are shown however it ends."""
    from pfpcli.terminal_console import TerminalConsole

    console = TerminalConsole(talk, quiet)
    # Libraries print, and so may the user's own network: stdout is for the result alone.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
        with console.starting():  # torch takes seconds to import
            pipeline = importlib.import_module("pfpcli.pipeline")
        try:
            return getattr(pipeline, name)(settings, console)
        finally:
            console.close()


def _print_summary(finished: record.Run, folder: str, color: str) -> None:
    page = output(sys.stdout, color)
    text = summary(finished, folder=folder, width=_width(), unicode=page.unicode)
    page.write(text.removesuffix("\n"))


def _print_json(found: record.Run | Inspection) -> None:
    """The record as it stands in run.json, byte for byte, whatever the encoding of the terminal."""
    sys.stdout.flush()
    sys.stdout.buffer.write(found.json().encode("utf-8"))


def _width() -> int:
    return get_terminal_size((80, 24)).columns


def _json_object(flag: str, text: str) -> dict[str, Any]:
    """A JSON object given as text.

    Raises:
        InputError: it is none.
    """
    hint = f"""for example `{flag} '{{"num_classes": 10}}'`"""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{flag}: not JSON ({error})", hint) from error
    if not isinstance(value, dict):
        raise InputError(f"{flag}: expected a JSON object, found {text}", hint)
    return value


def output(stream: TextIO, color: str) -> Output:
    """A stream as one to talk on, in colour if that is asked for or the stream is a terminal."""
    from pfpcli.terminal_console import Output

    return Output(stream, color)
