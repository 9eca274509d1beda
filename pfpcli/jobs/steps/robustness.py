"""Robustness: the quality of the network on damaged images, beside that of the original."""

from __future__ import annotations

import math
from collections.abc import Iterator

from pfpcli.images.corruptions import CONSTANTS, Corruption, source_of
from pfpcli.jobs.steps.network import Network, Prepared
from pfpcli.outputs.fall import fall
from pfpcli.progress import Console, Step
from pfpcli.records.parts import Quality
from pfpcli.records.robustness import Damage, Robustness
from pfpcli.records.searched import Fall

#: The most images that are damaged: each of them is computed 26 times. They are spread over all judging images.
MOST = 1000
#: By how much more the metric may fall by chance where there is no confidence interval.
POINTS = 0.02


def measure_robustness(ready: Prepared, network: Network, quality: Quality, console: Console) -> Robustness:
    """Compare the network with the original on damaged judging images.

    Args:
        ready: what the network was made of.
        network: the network.
        quality: of the network; its headline decides what is compared.
        console: shows the step.
    """
    with console.step("damage") as step:
        found, step.is_cached = ready.store.value(
            lambda: _measured(ready, network, quality, step),
            Robustness,
            "damage",
            *(network.made.graph, ready.division.judged.tobytes(), ready.division.source),
            *(quality.metric, quality.output, ready.settings.seed, ready.device.type),
        )
        falls = {damage.corruption: max(map(_fall, damage.before, damage.after)) for damage in found.damages}
        worst = max(falls, key=falls.__getitem__)
        whole, most = (100 * fall for fall in (_fall(found.before, found.after), falls[worst]))
        step.summary = f"{found.metric} falls by {whole:.1f} points, by up to {most:.1f} ({worst})"
    return found


def _measured(ready: Prepared, network: Network, quality: Quality, step: Step) -> Robustness:
    """Compare both networks on undamaged and on damaged images."""
    source = source_of(ready.calibration.size)
    clean, clean_fall = _compared(ready, network, None)
    found = Robustness(quality.metric, source, clean.n, clean.source, *clean.at(quality), [])
    rows = CONSTANTS[source]
    for done, (kind, strength) in enumerate(_conditions(rows)):
        step.progress(done, sum(map(len, rows.values())), "corruptions")
        if strength == 0:
            found.damages.append(Damage(kind, list(rows[kind])))
        damage = found.damages[-1]
        corruption = Corruption(kind, rows[kind][strength], ready.settings.seed)
        damaged, damaged_fall = _compared(ready, network, corruption)
        before, after = damaged.at(quality)
        damage.before.append(before)
        damage.after.append(after)
        is_same = {clean.output, damaged.output} == {quality.output}
        damage.margins.append(round(_margin(clean_fall, damaged_fall) if is_same else POINTS, 4))
    return found


def _conditions(rows: dict[str, tuple[float, ...]]) -> Iterator[tuple[str, int]]:
    return ((kind, strength) for kind, constants in rows.items() for strength in range(len(constants)))


def _fall(before: float, after: float) -> float:
    return before - after


def _compared(ready: Prepared, network: Network, corruption: Corruption | None) -> tuple[Quality, Fall]:
    """Compare the network with the original on damaged images."""
    division = ready.division.damaged(corruption).thinned(MOST)
    graph = ready.groups.labelled.graph
    return fall(graph, network.made.graph, division.judging(graph.fixed_batch), division.source, ready.device)


def _margin(clean: Fall, damaged: Fall) -> float:
    """By how much more the metric may fall on damaged images by chance.

    The difference of two falls has an interval of its own: the squares of the distances to the ends of both add up
    (Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 2008).
    """
    if clean.high is None or damaged.low is None:
        return POINTS
    return math.hypot(clean.high - clean.fall, damaged.fall - damaged.low)
