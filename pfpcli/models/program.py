"""Exported programs: .pt2 files of torch.export.save."""

from __future__ import annotations

import logging
import warnings
from typing import BinaryIO

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pfpcli.errors import InputError
from pfpcli.graph.inference import training_op
from pfpcli.models.artefact import Artefact, LoadOptions
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.models.pickles import broken, check_program


def load_program(artefact: Artefact, options: LoadOptions) -> LoadedModel:
    """Load a .pt2 file.

    Args:
        artefact: the file.
        options: whether the file is trusted.

    Raises:
        InputError: the file holds compiled code only, would run code, is broken, was exported in training mode, or
            does not take exactly one input.
    """
    if not artefact.has("models/") and artefact.has("data/aotinductor/"):
        raise InputError(
            f"{artefact.name}: this is a compiled AOTInductor package; it has no graph that could be cut",
            "pass the file that torch.export.save wrote before it was compiled",
        )
    with artefact.path.open("rb") as file:
        if not options.trust:
            check_program(file, artefact.name)
        program = _exported_program(file, artefact.name)
    if op := training_op(program.graph):
        raise InputError(
            f"{artefact.name}: was exported in training mode ({op} trains)", "export it again after model.eval()"
        )
    module = program.module(check_guards=False)
    size, batch = _input_size(program), _batch(program, artefact.name)
    return LoadedModel(artefact.name, "pt2", module, program, size, artefact.sha256, batch)


def _exported_program(file: BinaryIO, name: str) -> ExportedProgram:
    reasons: list[BaseException] = []

    def keep_reason(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            reasons.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")  # torch logs the reason and raises an error that refers to the log
    logger.addFilter(keep_reason)
    try:
        with warnings.catch_warnings():
            # torch 2.10 maps the tensors of the file, and warns that they cannot be written to
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            return torch.export.load(file)
    except Exception as error:
        raise broken(name, reasons[0] if reasons else error) from error
    finally:
        logger.removeFilter(keep_reason)


def _input_size(program: ExportedProgram) -> tuple[int, ...] | None:
    """Return the shape of the first tensor input without the batch; a free size counts as its size at the export."""
    names = program.graph_signature.user_inputs
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if node.name in names and isinstance(value, Tensor):
            sizes = [size if isinstance(size, int) else size.node.hint for size in value.shape[1:]]
            return None if None in sizes else tuple(sizes)
    return None


def _batch(program: ExportedProgram, name: str) -> int | None:
    """Return the batch size that a program was exported for, None if it is free."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise InputError(
            f"{name}: takes {len(inputs)} inputs ({names}); calibration images feed exactly one",
            "wrap the model in a module whose forward takes one tensor, and export that",
        )
    size = inputs[0].meta["val"].shape[0]
    return size if isinstance(size, int) else None
