"""Warnings: what a user should know about a run that went through, each with what to do about it.

Each function returns a message, or "" where there is nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pfpcli.amounts import COUNTED, noun_of
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.jobs.steps.export import ExportedFiles
from pfpcli.jobs.steps.score import Scored
from pfpcli.latency.files import SpeedUp
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.untouched import Untouched
from pfpcli.outputs.fall import images_needed
from pfpcli.outputs.quality import LOSS
from pfpcli.progress import Console
from pfpcli.records.folders import PRECISIONS
from pfpcli.records.parts import LayerRow, Quality, UserMetric
from pfpcli.records.precision import Precision
from pfpcli.records.robustness import Robustness
from pfpcli.records.searched import Search
from pfpcli.report import falls
from pfpcli.report.unlucky_widths import remark
from pfpcli.scoring.scores import set_size
from pfpcli.settings.max_drop import DECIBELS, MaxDrop
from pfpcli.sparsity.choose import Chosen
from pfpcli.sparsity.weights import Weights


def warn(console: Console, messages: Iterable[str]) -> None:
    """Pass the messages that are not empty to the console."""
    for message in messages:
        if message:
            console.warn(message)


def did_not_help(run: str) -> str:
    """Training did not improve the network of a run."""
    return (
        f"fine-tuning made nothing better, so the weights are those of {run}: train longer "
        "(--epochs), more slowly (--lr) or on more images, and see that the class folders are in the order of the "
        "outputs"
    )


def wrong_preprocessing(division: Division, quality: Quality) -> str:
    """The original is no better than guessing on labelled images."""
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


def unfit_labels(division: Division, quality: Quality) -> str:
    """The labels of the judging images name classes that the network does not have."""
    labels = division.judges.labels
    if labels is None or quality.classes is None or quality.metric == "accuracy":
        return ""
    return (
        f"the labels of {division.judges.name} go from {labels.min()} to {labels.max()}, and the network has "
        f"{quality.classes} outputs: they do not count; list the classes in the order of the outputs (--classes FILE)"
    )


def few_samples(division: Division, readers: list[Reader], delta: float) -> str:
    """The guarantee asks for more scoring images than there are."""
    needed, there = set_size(readers, delta), len(division.scored)
    if there >= needed:
        return ""
    name = division.calibration.images.name
    return f"scored on {there} images; the guarantee asks for {needed}: add images to {name}"


def empty_layers(weights: Sequence[Weights], chosen: Sequence[Chosen]) -> str:
    """Layers have no nonzero weight left."""
    pairs = zip(weights, chosen, strict=True)
    names = [each.name for each, one in pairs if each.tensor.any() and not (each.tensor * one.factor).any()]
    return f"no weight is left in {', '.join(names)}: keep more (--keep), or --freeze what has to stay" if names else ""


def optimistic(division: Division) -> str:
    """The images that judge the network also scored it."""
    if "optimistic" not in division.source:
        return ""
    return "no images were left to judge the result, so it is judged on the ones that chose it: name others with --eval"


def damaged_by_quality(metric: UserMetric | None, robust: Robustness | None) -> str:
    """The damaged images are judged by the quality of pfp, although the user has a metric."""
    if metric is None or robust is None:
        return ""
    return f"--robustness measures {robust.metric} on damaged images, not {metric.name}"


def no_promise(found: Search | None) -> str:
    """The images are too few to promise that the quality falls by no more than was asked for."""
    if found is None:
        return ""
    told, asked = found.told, falls.spelled(found.asked, found.told.unit)
    if told.high is None:
        return f"{told.metric} is one number for all images, so nothing says how far chance has moved it"
    if told.high <= found.asked:
        return ""
    needed = images_needed(told, found.asked)
    enough = (
        f"about {float(f'{needed:.1g}'):,.0f} images like these would show it" if needed else "name more with --eval"
    )
    chosen = "" if found.confirmed else ", and the network was chosen on them"
    return (
        f"{told.images} images are too few to promise a fall of at most {asked}: {falls.moved(told)} on them, and with "
        f"other images it may fall by {falls.spelled(told.high, told.unit)} (95 %){chosen}; {enough}"
    )


def budget_missed(requested: dict[str, Any], achieved: dict[str, Any]) -> str:
    """Another fraction was kept than was asked for; arguments as in `Run`."""
    if achieved["exact"]:
        return ""
    of, asked, found = requested["of"], requested["keep"], achieved["keep"]
    if COUNTED[of].is_measured:
        noun = noun_of(requested)
        return f"--{of}: the written file has {found:.3f} of the original's {noun}, {asked:.3f} was asked for"
    return f"--keep {asked:g}: the closest plan there is keeps {found:.4f}"


def of_plan(groups: Groups, scored: Scored, delta: float) -> Iterator[str]:
    """What a user should know about the scores that a plan was made from, and about what it leaves alone."""
    if scored.scores.layers:
        yield few_samples(scored.division, scored.readers, delta)
    yield from scored.scores.remarks
    yield unknown_ops(groups)


def unknown_ops(groups: Groups) -> str:
    """Ops without a rule froze channels."""
    names = sorted({str(node.target) for node in groups.labelled.unknown})
    return f"no rule for {', '.join(names)}: the channels that reach them were left alone" if names else ""


def fixed_batch(graph: Graph) -> str:
    """The network takes one batch size only."""
    return "" if graph.dynamic else f"the model fixes its batch size to {graph.batch}; so does what was written"


def stops(model: LoadedModel, exported: ExportedFiles, graph: Graph) -> str:
    """The network is traced only up to some ops."""
    if isinstance(model.module, OnnxNetwork):
        return _untouched_nodes(model.module.untouched, exported)
    if not graph.stops:
        return ""
    ops = ", ".join(dict.fromkeys(graph.stops))
    return (
        f"the forward pass ends in steps whose sizes depend on values ({ops}), which no ONNX of a fixed form can hold: "
        f"model.onnx ends in front of them, with {len(graph.outputs)} outputs; model.pt, where it was written, has all "
        "of it"
    )


def _untouched_nodes(untouched: Untouched, exported: ExportedFiles) -> str:
    """Nodes of an ONNX file are left as they are."""
    if not untouched.ops:
        return ""
    ends = "model.onnx and model.pt2 end in front of them"
    kept = ends if exported.exported else "they stay in model.onnx as they are, model.pt2 ends in front of them"
    timed = "cut or counted" if exported.is_whole else "cut, counted or timed"
    return (
        f"the network is followed up to {', '.join(untouched.ops)}: those nodes and what comes after them "
        f"({len(untouched.nodes)} nodes, {untouched.parameters:,} parameters) are not {timed}; {kept}"
    )


def unused_parameters(model: LoadedModel, graph: Graph) -> str:
    """Parameters take no part in the forward pass."""
    if model.program is not None:
        return ""
    used = {name for name, _ in graph.module.named_parameters(remove_duplicate=False)}
    own = dict(model.module.named_parameters())
    unused = [name for name in own if name not in used]
    numbers = sum(own[name].numel() for name in unused)
    if not unused or len(unused) == len(own):
        return ""
    return (
        f"{numbers:,} parameters ({unused[0]} and others) take no part in the forward pass as they are; "
        "they are not counted and not exported"
    )


def exported_anew(exported: ExportedFiles) -> str:
    """An ONNX graph was exported anew instead of narrowed."""
    if not exported.exported:
        return ""
    return f"model.onnx is no longer the graph that came in, but torch's export of it{exported.exported}"


def skipped_images(division: Division) -> str:
    """Images were skipped or converted."""
    recorded = division.recorded()
    parts = []
    if recorded["skipped"]:
        parts.append(f"{recorded['skipped']} files could not be read and were skipped")
    if recorded["converted"]:
        parts.append(f"{recorded['converted']} images had other channels than the model takes and were converted")
    return "; ".join(parts)


def not_converted(precision: Precision) -> str:
    """There is no file of a precision."""
    return f"{PRECISIONS[precision.name]}: not written: {precision.why}" if precision.why else ""


def precision_gains_nothing(precision: Precision, float32: Precision) -> str:
    """A file of 8-bit integers is neither smaller nor faster than the float file."""
    sizes, times = (precision.file_bytes, float32.file_bytes), (precision.latency_ms, float32.latency_ms)
    if precision.name != "int8" or None in (*sizes, *times) or sizes[0] < sizes[1] or times[0] < times[1]:  # type: ignore
        return ""
    return (
        f"{precision.file}: neither smaller nor faster than {float32.file}: {len(precision.in_float)} of "
        f"{precision.layers} layers had to stay in float32; use {float32.file}, or --fp16"
    )


def precision_loses(precision: Precision, quality: Quality) -> str:
    """A file of a lower precision is clearly worse than the float file."""
    if precision.quality is None:
        return ""
    name, _, before = quality.name_before_after()
    after = precision.quality.at(quality)[1]
    if before - after < LOSS:
        return ""
    return (
        f"{precision.file}: {name} {100 * before:.1f} → {100 * after:.1f} % by the precision alone: "
        "give more calibration images, or use another precision"
    )


def precision_beyond_gate(
    precision: Precision, quality: Quality, metric: UserMetric | None, max_drop: MaxDrop | None
) -> str:
    """A file of a lower precision is beyond --max-drop, which is a gate on the float file."""
    if max_drop is None or max_drop.unit == DECIBELS or precision.quality is None:
        return ""
    name, before, after = quality.metric, *precision.quality.at(quality)
    if metric is not None and precision.metric is not None:
        name, before, after = metric.name, metric.before, precision.metric
    if before - after <= max_drop.most:
        return ""
    return f"{precision.file}: {name} fell by {before - after:.4g}; --max-drop {max_drop} holds for model.onnx alone"


def no_faster(found: SpeedUp, layers: Sequence[LayerRow]) -> str:
    """The cut network is not faster; layers: with their widths, of which some may be unlucky."""
    if found.is_measurable and found.times > 1:
        return ""
    what = (
        "no difference measurable" if not found.is_measurable else f"{1 / found.times:.2f} × the time of the original"
    )
    unlucky = [f"{layer.name}: {remark(layer)}" for layer in layers if remark(layer)]
    more = f", and {len(unlucky) - 1} more such" if len(unlucky) > 1 else ""
    widths = f" ({unlucky[0]}{more}: use --multiple-of 4)" if unlucky else ""
    return f"not faster: {what}{widths}; --latency 0.6 spends the budget on time instead of size"
