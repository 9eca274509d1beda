"""`pfp verify`: do networks compute the same?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from pfpcli.errors import InputError, PfpError
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.graph.role import Role
from pfpcli.images.calibration import open_calibration
from pfpcli.jobs.steps.networks import Pair, Pairs, open_pairs
from pfpcli.jobs.steps.open import output_names, resources, traced
from pfpcli.limits import check_input
from pfpcli.models.load import load
from pfpcli.models.runnable import Computed, Runnable
from pfpcli.outputs.differences import Differences
from pfpcli.outputs.quality import Tallies
from pfpcli.outputs.roles import Seen, real, select, tell
from pfpcli.progress import Console
from pfpcli.records.verified import NetworksCompared, OutputCompared, Verified
from pfpcli.settings import CalibrationSettings, VerifySettings
from pfpcli.settings.verify import IMAGES, RANDOM

#: Random inputs are made in batches of at most this many.
_BATCH = 4

#: Returns batches of inputs, each float32[N, ...], the same ones in every call.
Inputs = Callable[[], Iterator[Tensor]]


def verify(settings: VerifySettings, console: Console) -> Verified:
    """Compare networks on the same inputs.

    Raises:
        PfpError: a file is refused, or the networks differ in their inputs, outputs or shapes.
    """
    with resources(settings.threads):
        found = open_pairs(settings, console)
        inputs, said, n = _inputs(found, settings, console)
        told = _told(found.pairs[0], inputs, settings, console)
        with console.step("compare") as step:
            pairs = [
                _compared(pair, step.counted(((x,) for x in inputs()), n, "inputs"), told, settings)
                for pair in found.pairs
            ]
            step.summary = said
    same = all(each.same for each in pairs if not each.remark)
    return Verified(
        same=same, atol=settings.atol, rtol=settings.rtol, inputs=said, n=n, pairs=pairs, skipped=found.skipped
    )


def _inputs(found: Pairs, settings: VerifySettings, console: Console) -> tuple[Inputs, str, int]:
    """The inputs, what they are, and their number."""
    batch = _batch(found)
    if settings.calib is not None:
        with console.step("images") as step:
            first = replace(found.main, usual=found.size)
            calibration = open_calibration(cast(CalibrationSettings, settings), first)
            found.size = calibration.size
            count = min(settings.inputs or IMAGES, len(calibration.images))
            step.summary = f"{count} images · {calibration.preprocess.describe(calibration.size)}"
        indices = torch.arange(count).numpy()
        return (
            lambda: (images for images, _ in calibration.batches(batch, indices)),
            f"{count} images of {calibration.images.name}",
            count,
        )
    size = found.size
    if size is None:
        names = " and ".join(dict.fromkeys(each.name for each in found.networks))
        raise InputError(
            f"{names}: no file says how large its input is",
            "say it with --input-size C,H,W, e.g. `--input-size 3,224,224`",
        )
    count = settings.inputs or RANDOM
    rows = batch or min(_BATCH, count)
    count = -(-count // rows) * rows
    check_input(found.main.name, (rows, *size))

    def random() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(settings.seed)
        return (torch.randn((rows, *size), generator=generator) for _ in range(count // rows))

    return random, f"{count} random inputs of {'×'.join(map(str, size))}, seed {settings.seed}", count


def _batch(found: Pairs) -> int | None:
    """The only batch size that all networks take; None where any will do.

    Raises:
        InputError: two networks take batches of different sizes.
    """
    fixed = {each.name: each.batch for each in found.networks if each.batch is not None}
    if len(set(fixed.values())) > 1:
        raise InputError(
            "; ".join(f"{name} takes batches of {batch}" for name, batch in fixed.items()),
            "export one of them again for the batch of the other",
        )
    return next(iter(fixed.values()), None)


@dataclass(frozen=True)
class _Told:
    """What the outputs are called, and what they say; the same for all pairs of a command."""

    names: tuple[str, ...]
    roles: tuple[Role, ...]


def _told(pair: Pair, inputs: Inputs, settings: VerifySettings, console: Console) -> _Told:
    """Tell what the outputs say: by the structure of one of two networks where pfp can trace it, else numbers.

    Raises:
        InputError: no input could be read, or the networks have different outputs.
    """
    with console.step("trace") as step:
        x = next(inputs(), None)
        if x is None:
            raise InputError("no input could be read", "pass other images with --calib")
        found, other = pair.first.run(x), pair.second.run(x)
        _matched(pair, found, other)
        outputs = [each.float() for each in real(found.values)]
        names, roles = found.names or other.names, None
        for network in (pair.first, pair.second):
            graph, own = _traced(network, x, outputs)
            if graph is not None:
                names = names or own
                roles = tell(graph, names, settings.asked, Seen(x, outputs, None))
                break
        names = names or tuple(f"output {number}" for number in range(len(found.values)))
        if roles is None:
            titles = [name for name, each in zip(names, found.values, strict=True) if each.is_floating_point()]
            why = "its network cannot be traced"
            roles = tuple(Role(number, title, "regression", None, why) for number, title in enumerate(titles))
        step.summary = " · ".join(f"{role.name}: {role.kind}" for role in roles) or "no output of real numbers"
    return _Told(names, roles)


def _traced(network: Runnable, x: Tensor, outputs: list[Tensor]) -> tuple[Graph | None, tuple[str, ...]]:
    """The graph of a network with the names of its outputs; None where pfp follows only a part of it, or nothing."""
    try:
        model = load(network.source) if isinstance(network.source, Path) else network.source
        graph = traced(model, tuple(x.shape[1:]))
    except PfpError:
        return None, ()
    nodes = [node.meta["val"] for node in graph.outputs if is_tensor(node)]
    shapes = [tuple(each.shape[1:]) for each in nodes if each.is_floating_point()]
    is_whole = shapes == [tuple(each.shape[1:]) for each in outputs]
    return (graph, output_names(model, graph)) if is_whole else (None, ())


def _compared(pair: Pair, inputs: Iterator[tuple[Tensor]], told: _Told, settings: VerifySettings) -> NetworksCompared:
    """Compare two networks on all inputs."""
    first, second = pair.first, pair.second
    differences = [Differences() for _ in told.names]
    shapes: list[tuple[int, ...]] = []
    tallies: Tallies | None = None
    for (x,) in inputs:
        found, other = first.run(x), second.run(x)
        values = _matched(pair, found, other)
        whole, now = (_floats(each, told.roles) for each in (found.values, values))
        if tallies is None:
            shapes = [tuple(each.shape[1:]) for each in found.values]
            tallies = Tallies(told.roles, [tuple(each.shape) for each in whole])
        for each, a, b in zip(differences, found.values, values, strict=True):
            each.add(a, b)
        tallies.add(len(x), whole, now, None)
    outputs = [
        OutputCompared(name, shape, each.largest, each.mean, each.allowed(settings.atol, settings.rtol),
                       each.is_within(settings.atol, settings.rtol))
        for name, shape, each in zip(told.names, shapes, differences, strict=True)
    ]  # fmt: skip
    answers = [] if tallies is None else tallies.quality("").outputs
    return NetworksCompared(first.name, second.name, (first.runtime, second.runtime), outputs, answers, pair.remark)


def _floats(values: list[Tensor], roles: tuple[Role, ...]) -> list[Tensor]:
    """What the roles are about, in float32: one of both networks may compute in another precision."""
    return [each.float() for each in select(real(values), roles)]


def _matched(pair: Pair, first: Computed, second: Computed) -> list[Tensor]:
    """The outputs of the second network in the order of the first: by their names where these are the same.

    Raises:
        InputError: they differ in number or shape.
    """
    a, b = pair.first.name, pair.second.name
    values = second.values
    if len(first.values) != len(values):
        raise InputError(
            f"{a} has {_listed(first)}, {b} has {_listed(second)}", "compare networks with the same outputs"
        )
    if first.names and len(set(first.names)) == len(first.names) and set(first.names) == set(second.names):
        values = [values[second.names.index(name)] for name in first.names]
    names = first.names or second.names or tuple(str(number) for number in range(len(values)))
    for name, one, other in zip(names, first.values, values, strict=True):
        if one.shape != other.shape:
            sizes = " and ".join("×".join(map(str, each.shape)) for each in (one, other))
            raise InputError(
                f"output {name}: {a} and {b} compute the shapes {sizes}", "compare networks with the same outputs"
            )
    return values


def _listed(found: Computed) -> str:
    number = f"{len(found.values)} output{'' if len(found.values) == 1 else 's'}"
    return f"{number} ({', '.join(found.names)})" if found.names else number
