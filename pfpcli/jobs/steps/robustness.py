"""Robustness: the quality of the network on damaged images, beside that of the original."""

from __future__ import annotations

from collections.abc import Iterator

from pfpcli.images.corruptions import CONSTANTS, Corruption, source_of
from pfpcli.jobs.steps.network import Network, Prepared
from pfpcli.outputs.quality import compare
from pfpcli.progress import Console
from pfpcli.records.parts import Quality
from pfpcli.records.robustness import Damage, Robustness

#: The most images that are damaged: each of them is computed 26 times.
MOST = 1000
#: A larger fall than on undamaged images counts from this many standard errors on, or from this many points where no
#: decisions are counted.
ERRORS, POINTS = 3.0, 0.02


def measure_robustness(ready: Prepared, network: Network, quality: Quality, console: Console) -> Robustness:
    """Compare the network with the original on damaged judging images.

    Args:
        ready: what the network was made of.
        network: the network.
        quality: of the network; its headline decides what is compared.
        console: shows the step.
    """
    source = source_of(ready.calibration.size)
    with console.step("damage") as step:
        clean = _compared(ready, network, None)
        found = Robustness(quality.metric, source, clean.n, clean.source, *clean.at(quality), [])
        rows = CONSTANTS[source]
        for done, (kind, strength) in enumerate(_conditions(rows)):
            step.progress(done, sum(map(len, rows.values())), "corruptions")
            if strength == 0:
                found.damages.append(Damage(kind, list(rows[kind])))
            damage = found.damages[-1]
            damaged = _compared(ready, network, Corruption(kind, rows[kind][strength], ready.settings.seed))
            before, after = damaged.at(quality)
            damage.before.append(before)
            damage.after.append(after)
            damage.margins.append(round(_margin(clean, damaged), 4))
        falls = {damage.corruption: max(map(_fall, damage.before, damage.after)) for damage in found.damages}
        worst = max(falls, key=falls.__getitem__)
        fall = 100 * _fall(found.before, found.after)
        step.summary = f"{found.metric} falls by {fall:.1f} points, by up to {100 * falls[worst]:.1f} ({worst})"
    return found


def _conditions(rows: dict[str, tuple[float, ...]]) -> Iterator[tuple[str, int]]:
    return ((kind, strength) for kind, constants in rows.items() for strength in range(len(constants)))


def _fall(before: float, after: float) -> float:
    return before - after


def _compared(ready: Prepared, network: Network, corruption: Corruption | None) -> Quality:
    division = ready.division.damaged(corruption)
    graph = ready.groups.labelled.graph
    batches = division.judging(graph.fixed_batch, MOST)
    return compare(graph, network.made.graph, batches, division.source, ready.device)


def _margin(clean: Quality, damaged: Quality) -> float:
    """By how much more the metric may fall on damaged images by chance.

    The fall of an accuracy is the mean of numbers -1, 0 and 1 that are 0 wherever both networks decide the same, so its
    variance is at most the share of different decisions over the number of images.
    """
    if clean.agreement is None or damaged.agreement is None or not clean.n:
        return POINTS
    different = (1 - clean.agreement) + (1 - damaged.agreement)
    return float(ERRORS * (different / clean.n) ** 0.5)
