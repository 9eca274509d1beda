"""Warnings: what a user should know about a run that went through, each with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.exporting.latency import Latency
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.jobs.outcome import ExportedFiles, Outcome, SparseOutcome, TunedOutcome
from pfpcli.models.load import LoadedModel
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.untouched import Rest
from pfpcli.planning.plan import Plan
from pfpcli.records.record import Quality
from pfpcli.scoring.scores import set_size

#: A loss of accuracy or agreement that is worth a warning.
LOSS = 0.05


def warnings_about(outcome: Outcome) -> Iterator[str]:
    """Everything that is worth a warning."""
    division, graph = outcome.scored.division, outcome.groups.labelled.graph
    for message in (
        _wrong_preprocessing(division, outcome.quality),
        _lost_quality(outcome.quality),
        _few_samples(division, outcome.scored.readers, outcome.settings.delta) if outcome.scored.scores.layers else "",
        *outcome.scored.scores.remarks,
        _optimistic(division),
        _budget(outcome.planned),
        _unknown_ops(outcome.groups),
        _stops(outcome.source, outcome.written, graph),
        _fixed_batch(graph),
        _unused(outcome.source, graph),
        _exported(outcome.written),
        _skipped(division),
        _no_faster(*outcome.timed),
    ):
        if message:
            yield message


def warnings_about_sparse(outcome: SparseOutcome) -> Iterator[str]:
    """The same for a removal of single weights."""
    division, graph = outcome.weighed.division, outcome.groups.labelled.graph
    for message in (
        _wrong_preprocessing(division, outcome.quality),
        _lost_quality(outcome.quality),
        _few_samples(division, outcome.weighed.readers, outcome.settings.delta),
        _optimistic(division),
        _empty_layers(outcome),
        _stops(outcome.source, outcome.written, graph),
        _fixed_batch(graph),
        _unused(outcome.source, graph),
        _exported(outcome.written),
        _skipped(division),
    ):
        if message:
            yield message


def warnings_about_tuned(outcome: TunedOutcome) -> Iterator[str]:
    """The same for a fine-tuning."""
    for message in (
        "" if outcome.training.has_helped else _did_not_help(outcome),
        _optimistic(outcome.division),
        _fixed_batch(outcome.groups.labelled.graph),
        _exported(outcome.written),
        _skipped(outcome.division),
    ):
        if message:
            yield message


def _did_not_help(outcome: TunedOutcome) -> str:
    return (
        f"fine-tuning made nothing better, so the weights are those of {outcome.settings.run.name}: train longer "
        "(--epochs), more slowly (--lr) or on more images, and see that the class folders are in the order of the "
        "outputs"
    )


def _wrong_preprocessing(division: Division, quality: Quality) -> str:
    classes = len(division.judges.classes or ())
    if quality.metric != "accuracy" or classes < 2 or quality.n < 20:
        return ""
    # three standard deviations above guessing
    chance = 1 / classes
    if quality.before > chance + 3 * (chance * (1 - chance) / quality.n) ** 0.5:
        return ""
    return (
        f"the original is right on {100 * quality.before:.1f} % of {quality.n} images of {classes} classes, which is "
        "guessing: the preprocessing (--preprocess, --mean, --std, --resize) or the order of the class folders is "
        "probably wrong"
    )


def _lost_quality(quality: Quality) -> str:
    lost = quality.before - quality.after
    if lost < LOSS:
        return ""
    more = "keep more (--keep), train without labels (--recover lsq,distill), or with them (pfp finetune)"
    return f"{quality.metric} fell by {100 * lost:.1f} points: {more}"


def _few_samples(division: Division, readers: list[Reader], delta: float) -> str:
    needed, there = set_size(readers, delta), len(division.scored)
    if there >= needed:
        return ""
    name = division.calibration.images.name
    return f"scored on {there} images; the guarantee asks for {needed}: add images to {name}"


def _empty_layers(outcome: SparseOutcome) -> str:
    pairs = zip(outcome.weighed.weights, outcome.chosen, strict=True)
    names = [each.name for each, one in pairs if each.tensor.any() and not (each.tensor * one.factor).any()]
    return f"no weight is left in {', '.join(names)}: keep more (--keep), or --freeze what has to stay" if names else ""


def _optimistic(division: Division) -> str:
    if "optimistic" not in division.source:
        return ""
    return "no images were left to judge the result, so it is judged on the ones that chose it: name others with --eval"


def _budget(planned: Plan) -> str:
    if planned.is_met:
        return ""
    return f"--keep {planned.budget.keep:g}: the closest plan there is keeps {planned.achieved:.4f}"


def _unknown_ops(groups: Groups) -> str:
    names = sorted({str(node.target) for node in groups.labelled.unknown})
    return f"no rule for {', '.join(names)}: the channels that reach them were left alone" if names else ""


def _fixed_batch(graph: Graph) -> str:
    return "" if graph.dynamic else f"the model fixes its batch size to {graph.batch}; so does what was written"


def _stops(source: LoadedModel, written: ExportedFiles, graph: Graph) -> str:
    if isinstance(source.module, OnnxNetwork):
        return _rest(source.module.rest, written)
    if not graph.stops:
        return ""
    ops = ", ".join(dict.fromkeys(graph.stops))
    return (
        f"the forward pass ends in steps whose sizes depend on values ({ops}), which no ONNX of a fixed form can hold: "
        f"model.onnx ends in front of them, with {len(graph.outputs)} outputs; model.pt, where it was written, has all "
        "of it"
    )


def _rest(rest: Rest, written: ExportedFiles) -> str:
    if not rest.ops:
        return ""
    ends = "model.onnx and model.pt2 end in front of them"
    kept = ends if written.exported else "they stay in model.onnx as they are, model.pt2 ends in front of them"
    timed = "cut or counted" if written.is_whole else "cut, counted or timed"
    return (
        f"the network is followed up to {', '.join(rest.ops)}: those nodes and what comes after them "
        f"({len(rest.places)} nodes, {rest.numbers:,} parameters) are not {timed}; {kept}"
    )


def _unused(source: LoadedModel, graph: Graph) -> str:
    if source.program is not None:
        return ""
    used = {name for name, _ in graph.module.named_parameters(remove_duplicate=False)}
    own = dict(source.module.named_parameters())
    unused = [name for name in own if name not in used]
    numbers = sum(own[name].numel() for name in unused)
    if not unused or len(unused) == len(own):
        return ""
    return (
        f"{numbers:,} parameters ({unused[0]} and others) take no part in the forward pass as they are; "
        "they are not counted and not exported"
    )


def _exported(written: ExportedFiles) -> str:
    if not written.exported:
        return ""
    return f"model.onnx is no longer the graph that came in, but torch's export of it{written.exported}"


def _skipped(division: Division) -> str:
    recorded = division.recorded()
    parts = []
    if recorded["skipped"]:
        parts.append(f"{recorded['skipped']} files could not be read and were skipped")
    if recorded["converted"]:
        parts.append(f"{recorded['converted']} images had other channels than the model takes and were converted")
    return "; ".join(parts)


def _no_faster(before: Latency, after: Latency) -> str:
    if after.median_ms < before.median_ms:
        return ""
    return (
        f"not faster: {before.median_ms:.3g} → {after.median_ms:.3g} ms for one input; widths that fill the registers "
        "may be (--multiple-of 8), and --keep-of macs spends the budget on time instead of size"
    )
