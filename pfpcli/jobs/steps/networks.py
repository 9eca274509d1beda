"""Networks: the pairs of networks that `pfp verify` compares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.channels.reading_layers import readers
from pfpcli.cutting.cut import cut
from pfpcli.cutting.masked import InFloat64, Masked
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.errors import InputError
from pfpcli.jobs.steps.open import load_model, trace_groups
from pfpcli.models.artefact import LoadOptions
from pfpcli.models.load import load
from pfpcli.models.runnable import Computed, Runnable, of_model, open_runnable
from pfpcli.progress import Console
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read
from pfpcli.records.runs import AnyRun, Run
from pfpcli.settings import VerifySettings

#: Why a difference from the original or from its masked network does not count.
SMALLER, RECOVERED = "it is another network: this does not count", "it was recovered since: this does not count"


@dataclass(frozen=True)
class Pair:
    """Two networks to compare; remark: why a difference does not count, "" where it counts."""

    first: Runnable
    second: Runnable
    remark: str = ""


@dataclass
class Pairs:
    """The pairs of a command.

    Attributes:
        pairs: the pairs; the first network of each is the reference.
        main: the reference of most pairs.
        size: shape of one input, without the batch; None where no file says it.
        skipped: name of a file -> why it is not compared.
    """

    pairs: list[Pair]
    main: Runnable
    size: tuple[int, ...] | None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def networks(self) -> Iterable[Runnable]:
        """All networks, some of them several times."""
        return (self.main, *(network for pair in self.pairs for network in (pair.first, pair.second)))


def open_pairs(settings: VerifySettings, console: Console) -> Pairs:
    """Open the networks.

    Raises:
        InputError: a file is refused, or a single network is no run folder.
    """
    first = Path(str(settings.model))
    with console.step("load") as step:
        if settings.other is None:
            found = _within_run(first, settings)
        else:
            names = _titles(first, settings.other)
            one, two = (
                replace(_network(path, settings), name=name)
                for path, name in zip((first, settings.other), names, strict=True)
            )
            found = Pairs([Pair(one, two)], one, _common_size((one, two)))
        step.summary = " · ".join(dict.fromkeys(f"{each.name} ({each.runtime})" for each in found.networks))
    if settings.original is not None:
        found.pairs += _with_original(first, found, settings, console)
    return replace(found, size=settings.input_size or found.size)


def _network(path: Path, settings: VerifySettings) -> Runnable:
    """The network of a file, or model.onnx of a run folder."""
    if not path.is_dir():
        return open_runnable(path, _options(settings))
    run = read(path)
    found = open_runnable(path / str(run.artifacts["onnx"]), _options(settings))
    return replace(found, usual=tuple(run.model["input_size"]))


def _options(settings: VerifySettings) -> LoadOptions:
    return LoadOptions(settings.arch, settings.arch_kwargs or {}, settings.trust)


def _titles(first: Path, second: Path) -> tuple[str, str]:
    """What two files are called in messages and in the report: as little of their paths as tells them apart."""
    if first.name != second.name:
        return first.name, second.name
    return str(first), str(second)


def _common_size(networks: Iterable[Runnable]) -> tuple[int, ...] | None:
    """The shape of one input that all networks are made for.

    Raises:
        InputError: the files name different sizes.
    """
    fixed: dict[str, tuple[int | None, ...]] = {
        each.name: each.sizes[1:] for each in networks if each.runtime == "onnxruntime" and each.sizes is not None
    }
    for name, sizes in fixed.items():
        for other, others in fixed.items():
            same = len(sizes) == len(others) and all(
                a == b or None in (a, b) for a, b in zip(sizes, others, strict=True)
            )
            if not same:
                raise InputError(
                    f"{name} takes inputs of {_spelled(sizes)}, {other} of {_spelled(others)}",
                    "these are different networks; compare files that were exported for one size",
                )
    known = [each for each in fixed.values() if None not in each] + [each.usual for each in networks]
    return next((tuple(size for size in each if size is not None) for each in known if each is not None), None)


def _spelled(sizes: tuple[int | None, ...]) -> str:
    return "×".join("?" if size is None else str(size) for size in sizes)


def _within_run(folder: Path, settings: VerifySettings) -> Pairs:
    """The files of a run folder: each against model.pt2, or the first file where there is none."""
    if not folder.is_dir():
        raise InputError(
            f"{folder.name}: one file, nothing to compare it with", f"name a second one: `pfp verify {folder.name} B`"
        )
    run = read(folder)
    networks, skipped = {}, {}
    for kind in ("pt2", "onnx", "pt"):
        name = run.artifacts.get(kind)
        if name is None:
            continue
        try:
            networks[name] = open_runnable(folder / name, _options(settings), as_read=_ends_early(run))
        except InputError as error:
            skipped[name] = f"{error.message.removeprefix(f'{name}: ')}; {error.hint}"
    if not networks:
        raise InputError(f"{folder.name}: none of its networks can be read ({'; '.join(skipped.values())})")
    reference, *others = networks.values()
    if not others and settings.original is None:
        raise InputError(f"{folder.name}: holds {reference.name} alone", "name a second network to compare it with")
    pairs = [Pair(reference, other) for other in others]
    return Pairs(pairs, reference, tuple(run.model["input_size"]), skipped)


def _ends_early(run: AnyRun) -> bool:
    """Whether model.pt2 ends before nodes of the ONNX file that pfp does not follow."""
    return bool(run.trace.get("stops")) and run.model["kind"] == "onnx"


def _with_original(folder: Path, found: Pairs, settings: VerifySettings, console: Console) -> list[Pair]:
    """The original cut by the plan of a run against the masked original, and the run against both."""
    run, original = read(folder), settings.original
    assert original is not None
    mine = found.main
    if run.artifacts.get("plan") is None:
        model = load(
            original, arch=settings.arch, arch_kwargs=settings.arch_kwargs, trust=settings.trust, only_if_needed=True
        )
        return [Pair(replace(of_model(model), name="original"), mine, SMALLER)]
    plan_file = PlanFile.read(folder / FILES["plan"])
    asked = replace(settings, model=original, original=None)
    model = load_model(asked, console)
    if model.sha256 != run.model["sha256"]:
        console.warn(f"{model.name} is not the file that {folder.name} was made of ({run.model['name']})")
    groups = trace_groups(model, tuple(run.model["input_size"]), asked, console)
    plan = plan_file.plan(groups, readers(groups))
    made = cut(groups.labelled, plan.alive)
    whole = replace(of_model(model), name="original")
    masked = replace(whole, name="masked original", compute=_in_float64(Masked(made.slicing)))
    smaller = replace(whole, name="cut original", compute=_in_float64(InFloat64(made.graph.module)))
    is_original = not plan_file.tensors
    changed = plan.is_sampled or not isinstance(run, Run) or any(not each.undone for each in run.recovery)
    return [
        Pair(masked, smaller),
        Pair(masked, mine, RECOVERED if changed else ""),
        Pair(whole, mine, "" if is_original and not changed else SMALLER),
    ]


def _in_float64(network: InFloat64) -> Callable[[Tensor], Computed]:
    def compute(x: Tensor) -> Computed:
        found: Any = network.run(x.double())
        return Computed((), [each for each in tree_leaves(found) if isinstance(each, Tensor)])

    return compute
