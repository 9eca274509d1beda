"""Command line: flags in, settings out; results to stdout, talk to stderr, and the exit code says how it went.

    0    done, and every check held
    1    done, but a check did not hold; a network that fails its verification is not kept
    2    not done: a flag, a file, a budget out of reach, or a bug in pfp
    130  interrupted (143: told to end, 141: nobody reads the output); nothing was written

Nothing here imports torch before a compression starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from shutil import get_terminal_size
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from pfpcli import __version__, record
from pfpcli.errors import InputError, PfpError
from pfpcli.flags import COLORS, OUTPUT, Asked, Color, Json, Verbose, flag, setting, switch
from pfpcli.report import REPORTS
from pfpcli.report.terminal import summary, verdict
from pfpcli.settings import Settings, parse_keep, parse_numbers

if TYPE_CHECKING:
    from pfpcli.terminal_console import Output

#: The base of all errors about flags. Depending on its version, typer has its own copy of click, or click's.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

#: Exit codes of programs that a signal ended: 128 + SIGINT, 128 + SIGPIPE.
INTERRUPTED, NOBODY_READS = 130, 141

EXAMPLES = {
    "compress": (
        "pfp compress model.pt --calib ./imgs --keep 0.4",
        "pfp compress weights.pth --arch torchvision:resnet18 --calib ./imgs",
        "pfp compress model.pt --calib ./imgs --keep-of macs --freeze 'head*'",
        "pfp compress model.pt --calib ./imgs --out small --json > run.json",
    ),
    "report": (
        "pfp report",
        "pfp report pfp-runs/model-keep0.40 --all",
        "pfp report --json > run.json",
    ),
}


class Interrupted(BaseException):
    """The user, or the system, wants pfp to end; no `except Exception` on the way gets hold of it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


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


def main() -> NoReturn:
    """The `pfp` command."""
    signal.signal(signal.SIGTERM, _terminated)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Do what the arguments say; returns the exit code."""
    asked = Asked()
    command = typer.main.get_command(app)
    try:
        code = command.main(list(args) or ["--help"], "pfp", standalone_mode=False, obj=asked)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        code = explain(_interrupt_behind(error) or error, asked)
    return code or 0


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The interrupt an error comes from; onnxruntime, interrupted while it is imported, fails with an ImportError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt | Interrupted):
        cause = cause.__cause__
    return cause


def explain(error: BaseException, asked: Asked) -> int:
    """Say on stderr what went wrong; returns the exit code. The one place where errors become text.

    `error: weights.pt: this is a state dict, not a model

    hint: name the function that builds the network with --arch`
    """
    code = _exit_code(error)
    if isinstance(error, OSError) or code == NOBODY_READS:
        _drop(sys.stdout)
    try:
        if code != NOBODY_READS:
            _output(sys.stderr, asked.color).write(_text(error, asked.verbose))
    except BrokenPipeError:
        code = NOBODY_READS
    if code == NOBODY_READS:
        _drop(sys.stderr)
    return code


def _exit_code(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return NOBODY_READS
    return int(getattr(error, "exit_code", INTERRUPTED if isinstance(error, KeyboardInterrupt) else 2))


def _text(error: BaseException, verbose: bool) -> str:
    """All that is said about an error."""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return "interrupted; nothing was written"
    message, hint = _explained(error, verbose)
    seen = "".join(traceback.format_exception(error)) + "\n" if verbose and not isinstance(error, UsageError) else ""
    return f"{seen}error: {message}" + (f"\n\nhint: {hint}" if hint else "")


def _explained(error: BaseException, verbose: bool) -> tuple[str, str]:
    """An error's message and hint."""
    if isinstance(error, PfpError):
        return error.message, error.hint
    if isinstance(error, UsageError):
        return _usage(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{Path(os.fsdecode(error.filename)).name}: " if error.filename else ""
        return f"{where}{error.strerror}", "" if verbose else "run it again with -v to see where"
    text = " ".join(str(error).split())
    what = f"this is a bug in pfp: {type(error).__name__}" + (f": {text}" if text else "")
    seen = "report it with the lines above" if verbose else "run it again with -v, and report it with what that prints"
    return what, seen


def _usage(error: Any) -> tuple[str, str]:
    """The parser's errors in our words, and the flag that was probably meant."""
    command = error.ctx.command_path if error.ctx else "pfp"
    see = f"see `{command} --help`"
    if hasattr(error, "possibilities"):
        close = list(error.possibilities or ())
        return f"{error.option_name}: no such option of {command}", f"did you mean `{close[0]}`?" if close else see
    parameter = getattr(error, "param", None)
    if parameter is None:
        return _clause(error.message), see
    flag = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar
    if hasattr(error, "param_type"):
        return f"{flag} is missing", f"for example `{EXAMPLES[error.ctx.info_name][0]}`"
    return f"{flag}: {_clause(error.message)}", see


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(128 + number)


def _output(stream: TextIO, color: str) -> Output:
    from pfpcli.terminal_console import Output

    return Output(stream, color)


def _drop(stream: TextIO) -> None:
    """Let what is still in the buffer go nowhere, so that Python does not complain about it at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pfp {__version__}")
        raise typer.Exit


_INPUT, _CALIBRATION, _BUDGET, _SCORING = "Input", "Calibration images", "Budget", "Scoring"
_MACHINE = "Machine"


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
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Checkpoint: a module, state dict, TorchScript or exported program."),
    ],
    *,
    arch: Annotated[
        str | None,
        flag(_INPUT, "What builds the network of a state dict, e.g. torchvision:resnet18.", metavar="MODULE:FACTORY"),
    ] = Settings.arch,
    arch_kwargs: Annotated[str | None, flag(_INPUT, "Keyword arguments for --arch, an object.", metavar="JSON")] = None,
    input_size: Annotated[str | None, flag(_INPUT, "Needed where the file does not say.", metavar="C,H,W")] = None,
    trust: Annotated[bool, switch(_INPUT, "Load pickles that may run any code.", "--trust")] = Settings.trust,
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
    freeze: Annotated[
        list[str] | None, flag(_BUDGET, "Leave layers alone, e.g. 'head*'; may be repeated.", metavar="PATTERN")
    ] = None,
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
        model=model,
        calib=calib,
        keep=parse_keep(keep),
        keep_of=keep_of,
        criterion=criterion,
        reduce=reduce,
        samples=samples,
        freeze=tuple(freeze or ()),
        multiple_of=multiple_of,
        min_channels=min_channels,
        arch=arch,
        arch_kwargs=None if arch_kwargs is None else _json_object("--arch-kwargs", arch_kwargs),
        trust=trust,
        input_size=None if input_size is None else parse_numbers("--input-size", input_size, int),
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
    talk = _output(sys.stderr, color)
    finished, folder = _compress(settings, talk, quiet=quiet, verbose=verbose)
    if as_json:
        _print_json(finished)
    elif not quiet:
        talk.write("")
        _print_summary(finished, folder, color)
    if finished.status != "ok":
        if as_json or quiet:
            talk.write(verdict(finished))
        raise typer.Exit(1)


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
    output = _output(sys.stdout, color)
    folder = str(path if path.is_dir() else path.parent)
    text = REPORTS["terminal"](found, folder=folder, width=_width(), everything=everything, unicode=output.unicode)
    output.write(text.removesuffix("\n"))


def _compress(settings: Settings, output: Output, *, quiet: bool, verbose: bool) -> tuple[record.Run, str]:
    """Run the pipeline with its steps on stderr; the warnings are shown however it ends."""
    from pfpcli.terminal_console import TerminalConsole

    console = TerminalConsole(output, quiet)
    # Libraries print, and so may the user's own network: stdout is for the result alone.
    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        if not verbose:
            warnings.simplefilter("ignore")
        with console.starting():  # torch takes seconds to import
            from pfpcli.pipeline import compress as pipeline
        try:
            return pipeline(settings, console)
        finally:
            console.close()


def _print_summary(finished: record.Run, folder: str, color: str) -> None:
    output = _output(sys.stdout, color)
    text = summary(finished, folder=folder, width=_width(), unicode=output.unicode)
    output.write(text.removesuffix("\n"))


def _print_json(found: record.Run) -> None:
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
