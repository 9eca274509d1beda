"""Open: load the file, open the images, trace the network. All of it comes before anything is measured."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli import memory, processes
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.cutting.masked import InFloat64
from pfpcli.errors import CheckFailed, InputError, TraceError, UnsupportedError
from pfpcli.exporting import export
from pfpcli.graph.difference import largest_difference
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.graph.inference import negative_variance, training_op
from pfpcli.graph.trace import from_program, trace
from pfpcli.images.calibration import Calibration, open_calibration
from pfpcli.limits import check_input, check_value
from pfpcli.models.load import from_module, load
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.models.scripts import check_ends
from pfpcli.models.torchscript import script_to_fx
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch, run_onnx, session
from pfpcli.outputs.roles import Seen, real, tell
from pfpcli.planning.refusals import nothing_to_prune
from pfpcli.progress import Console
from pfpcli.settings import CalibrationSettings, InMemoryModel, NetworkSettings

#: The images that show whether the network says anything at all, and what.
_LOOKED_AT = 8
#: Two runtimes may differ by this many rounding errors of float32: a network may amplify them on the random example.
_ROUNDING = 4


def open_network(settings: CalibrationSettings, console: Console) -> tuple[LoadedModel, Calibration, Groups]:
    """Load the file, open the images and trace the network.

    Raises:
        CheckFailed: there are ops without a rule, and --strict refuses them.
    """
    model = load_model(settings, console)
    calibration = open_images(settings, model, console)
    groups = trace_groups(model, calibration.size, settings, console)
    unknown = unknown_ops(groups)
    if settings.strict and unknown:
        names = ", ".join(f"{op} ×{count}" for op, count in unknown.items())
        raise CheckFailed(f"--strict: no rule for {names}", "what they hold back: `pfp inspect MODEL`")
    return model, calibration, with_roles(groups, model, calibration, settings)


def open_prunable(settings: CalibrationSettings, console: Console) -> tuple[LoadedModel, Calibration, Groups]:
    """Do as `open_network`, and refuse a network in which every channel is frozen.

    Raises:
        UnsupportedError: nothing can be pruned.
    """
    model, calibration, groups = open_network(settings, console)
    if not groups.prunable:
        raise nothing_to_prune(groups)
    return model, calibration, groups


def load_model(settings: NetworkSettings, console: Console) -> LoadedModel:
    """Load the file, or take over the module in memory."""
    with console.step("load") as step:
        if isinstance(settings.model, InMemoryModel):
            model = from_module(settings.model.module, settings.model.name)
        else:
            model = load(settings.model, arch=settings.arch, arch_kwargs=settings.arch_kwargs, trust=settings.trust)
        step.summary = f"{model.name} · {model.kind.replace('_', ' ')}"
    return model


def input_size(model: LoadedModel, asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the shape of one input, without the batch.

    Args:
        model: the network.
        asked: the shape that the user names; None takes that of the file.

    Raises:
        InputError: neither says it.
    """
    size = asked or model.input_size
    if size is None:
        raise sizeless(model.name)
    return size


def sizeless(name: str) -> InputError:
    """Return the error for a file that does not say how large its input is."""
    return InputError(
        f"{name}: the file does not say how large its input is",
        "say it with --input-size C,H,W, e.g. `--input-size 3,224,224`",
    )


def open_images(settings: CalibrationSettings, model: LoadedModel, console: Console) -> Calibration:
    """Open the calibration folders and check that they fit the network."""
    with console.step("images") as step:
        calibration = open_calibration(settings, model, find_device(settings.device).type)
        classes = f" in {len(calibration.images.classes)} classes" if calibration.images.classes else ", no labels"
        used = calibration.preprocess.describe(calibration.size)
        step.summary = f"{len(calibration.images)} images{classes} · {used}"
    return calibration


def trace_groups(model: LoadedModel, size: tuple[int, ...], settings: NetworkSettings, console: Console) -> Groups:
    """Trace the network, tell what its outputs say by its structure, and find the groups of its channels.

    Args:
        model: the network.
        size: shape of one input, without the batch.
        settings: which channels are frozen.
        console: shows the step.
    """
    with console.step("trace") as step:
        graph = traced(model, size)
        if isinstance(model.module, OnnxNetwork):
            assert isinstance(settings.model, Path)
            _check_reading(graph, model.module, settings.model)
        graph = replace(graph, roles=tell(graph, output_names(model, graph), settings.asked))
        groups = group_by_settings(graph, settings)
        ops = sum(node.op == "call_function" for node in graph.nodes)
        frozen = len(groups.groups) - len(groups.prunable)
        step.summary = f"{ops} ops · {len(groups.groups)} groups, {len(groups.prunable)} prunable, {frozen} frozen"
    return groups


def with_roles(groups: Groups, model: LoadedModel, calibration: Calibration, settings: NetworkSettings) -> Groups:
    """Tell what the outputs say by a few images as well.

    Raises:
        InputError: the network says nothing about images.
        UnsupportedError: the network puts out whole numbers alone.
    """
    graph = groups.labelled.graph
    if not any(is_tensor(node) and node.meta["val"].is_floating_point() for node in graph.outputs):
        raise UnsupportedError(
            f"{model.name}: puts out whole numbers alone, e.g. classes that an argmax chooses; by them nothing can be "
            "optimised or judged",
            "return the scores in front of them, or pass its ONNX export: ArgMax and TopK stay in an ONNX file as they "
            "are, and pfp goes by the scores that they read",
        )
    seen = _look(graph, calibration, model.name)
    told = replace(graph, roles=tell(graph, output_names(model, graph), settings.asked, seen))
    return replace(groups, labelled=replace(groups.labelled, graph=told))


def group_by_settings(graph: Graph, settings: NetworkSettings) -> Groups:
    """Find the groups of a network; the settings say which of its channels are frozen."""
    return group(label(graph), settings.freeze, exact_only=settings.exact_only, where=settings.where)


def unknown_ops(groups: Groups) -> dict[str, int]:
    """Op without a rule -> how often it is called."""
    return dict(Counter([*groups.labelled.graph.unread, *(str(node.target) for node in groups.labelled.unknown)]))


def find_device(wanted: str) -> torch.device:
    """The device that was asked for.

    Raises:
        InputError: torch finds no such device.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
    if not available[wanted]:
        raise InputError(f"--device {wanted}: torch finds no such device here", "use `--device auto` or `--device cpu`")
    return processes.own(torch.device(wanted))


@contextmanager
def resources(threads: int | None) -> Iterator[Path]:
    """A scratch folder, and the number of CPU threads of torch, for the time of a job; threads: None uses all cores."""
    memory.keep_freed()
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with memory.set_aside(), tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    finally:
        torch.set_num_threads(before)


def traced(model: LoadedModel, size: tuple[int, ...]) -> Graph:
    """Trace a network.

    Args:
        model: the network.
        size: shape of one input, without the batch.

    Raises:
        TraceError: its forward pass cannot be followed.
        InputError: it is too large to run here, or its outputs depend on more than the image.
    """
    graph = _graph_of(model, size)
    _check_inference(graph, model.name)
    return graph


def output_names(model: LoadedModel, graph: Graph) -> tuple[str, ...]:
    """Return the names of a network's outputs."""
    return (model.names or export.names(graph)).outputs


def _graph_of(model: LoadedModel, size: tuple[int, ...]) -> Graph:
    generator = torch.Generator().manual_seed(0)
    # torch.export takes a batch of one for a constant
    shape = (model.batch or 2, *size)
    check_input(model.name, shape)
    example = (torch.randn(shape, generator=generator),)
    if model.program is not None:
        return from_program(model.program, example)
    if isinstance(model.module, OnnxNetwork):
        untouched, outputs = model.module.untouched, model.module.names.outputs
        choices = tuple((outputs.index(name), dim, op) for name, dim, op in untouched.choices)
        return replace(trace(model.module, example), stops=untouched.ops, unread=untouched.unknown, choices=choices)
    if not isinstance(model.module, torch.jit.ScriptModule):
        return trace(model.module, example)
    if model.looping is not None:
        check_ends(model.looping, shape)
    try:
        return trace(script_to_fx(model.module, example), example, model.module)
    except TraceError:  # a script that fixes its batch size is traced with one input
        return trace(script_to_fx(model.module, (example[0][:1],)), (example[0][:1],), model.module)


def _check_inference(graph: Graph, name: str) -> None:
    """Refuse a network that is too large to run here, or whose outputs depend on more than the image."""
    for node in graph.nodes:
        if is_tensor(node):
            check_value(name, str(node.target), node.meta["val"].shape)
    if op := training_op(graph.module.graph):
        raise InputError(
            f"{name}: computes {op} as in training, so its outputs depend on chance or on the other images",
            "call eval() before saving; give F.dropout `training=self.training`, let batch norms track statistics, "
            "and leave random ops out of inference",
        )
    if tensor := negative_variance(graph):
        raise InputError(
            f"{name}: {tensor} has negative numbers, expected variances", "use a checkpoint that is not damaged"
        )


def _look(graph: Graph, calibration: Calibration, name: str) -> Seen | None:
    """Run a few images; returns them and the outputs, None if no image could be read.

    Raises:
        InputError: the network says nothing about images: no output is finite, or all are the same for every image.
    """
    looked_at = np.arange(min(_LOOKED_AT, len(calibration.images)))
    found: list[tuple[Tensor, list[Tensor]]] = []
    with torch.no_grad():
        for images, _ in calibration.of(calibration.images, looked_at, graph.fixed_batch, shared=False):
            outputs = [x for x in tree_leaves(graph(images)) if isinstance(x, Tensor)]
            found.append((images, outputs))
    if not found:
        return None
    _check_outputs(found, calibration.images.name, name)
    outputs = [torch.cat(each) if each[0].dim() else each[0] for each in zip(*(made for _, made in found), strict=True)]
    labels = [each.labels for each in (calibration.images, calibration.judges) if each is not None]
    known = [each for each in labels if each is not None]
    return Seen(torch.cat([images for images, _ in found]), real(outputs), np.concatenate(known) if known else None)


def _check_outputs(found: list[tuple[Tensor, list[Tensor]]], folder: str, name: str) -> None:
    rows: list[tuple[Tensor, Tensor]] = []
    for images, outputs in found:
        if all(x.dim() and len(x) == len(images) for x in outputs):
            rows += [(one, torch.cat([x[i].double().flatten() for x in outputs])) for i, one in enumerate(images)]
        elif outputs:  # an output of the images together, e.g. with the steps of a sequence first
            rows.append((images, torch.cat([x.double().flatten() for x in outputs])))
    if not rows:
        return
    if not rows[0][1].numel():
        raise InputError(f"{name}: its outputs hold no numbers", "export or save it with the layers behind them")
    where = f"for the first {sum(len(images) for images, _ in found)} images of {folder}"
    if not any(bool(output.isfinite().any()) for _, output in rows):
        raise InputError(
            f"{name}: puts out nan or infinity only, {where}",
            "check the preprocessing (--mean, --std), or use a checkpoint from before the training diverged",
        )
    image, output = rows[0]
    others = [each for each in rows if not torch.equal(each[0], image)]
    if others and all(torch.equal(each[1], output) for each in others):
        raise InputError(
            f"{name}: puts out the same {where}, so nothing can be measured",
            "check the weights of the checkpoint, and the preprocessing (--mean, --std)",
        )


def _rounding(graph: Graph) -> float:
    """The error of the graph's outputs in float32 on its example, relative to the largest output."""
    with torch.no_grad():
        narrow = tree_leaves(graph(*graph.example))
    wide = tree_leaves(InFloat64(graph.module).run(*(x.double() for x in graph.example)))
    return largest_difference(narrow, wide)


def _check_reading(graph: Graph, network: OnnxNetwork, file: Path) -> None:
    """Refuse an ONNX file for which onnxruntime computes other outputs than pfp."""
    try:
        run_onnx(session(network.as_read(file)), graph.example)
    except Exception as error:
        said = str(error).strip().partition("\n")[0].replace(str(file.parent), "")
        raise InputError(f"{file.name}: onnxruntime does not run it ({said})", "export it again") from error
    difference = onnx_vs_torch(network.as_read(file), graph, graph.example)
    if difference > ONNX_TOLERANCE and difference > _ROUNDING * _rounding(graph):
        raise CheckFailed(
            f"{file.name}: what pfp makes of it differs from onnxruntime by {difference:.1e} "
            f"(at most {ONNX_TOLERANCE:.0e} expected)",
            "pass the checkpoint it was exported from",
        )
