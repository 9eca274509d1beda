"""From a file, or a module in memory, to a LoadedModel.

`load` tells the format of a file by its content, never by its suffix. It reads ONNX, TorchScript, .pt2 programs,
modules, state dicts and checkpoints. It refuses every other file and says what the file is, files that would run code
(`pickles`), weights without an architecture (`arch`), weights that are not finite, and networks without weights.

To add an input format, add one row to `LOADERS`: a name, a function that recognises the bytes, a function that returns
a LoadedModel, and the noun for messages. No other module needs to know the format.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pfpcli.errors import InputError, PfpError
from pfpcli.limits import bounded_memory
from pfpcli.models.arch import known_input_size, reason
from pfpcli.models.artefact import (
    Artefact,
    LoadOptions,
    is_onnx,
    is_pt2,
    is_safetensors,
    is_text,
    is_torch_pickle,
    is_torchscript,
    open_artefact,
)
from pfpcli.models.checkpoint import load_checkpoint
from pfpcli.models.loaded_model import LoadedModel, check_weights
from pfpcli.models.names import check_names
from pfpcli.models.pickles import broken
from pfpcli.models.program import load_program
from pfpcli.models.scripts import check_script
from pfpcli.onnx_io.network import read_onnx


@dataclass(frozen=True)
class Loader:
    """An input format.

    Attributes:
        name: its name.
        recognises: whether a file has this format.
        load: reads the file.
        noun: what a file of this format is called in messages, if it needs no --arch.
    """

    name: str
    recognises: Callable[[Artefact], bool]
    load: Callable[[Artefact, LoadOptions], LoadedModel]
    noun: str = "whole model"


def load(
    path: Path,
    *,
    arch: str | None = None,
    arch_kwargs: dict[str, Any] | None = None,
    trust: bool = False,
    only_if_needed: bool = False,
) -> LoadedModel:
    """Load a network from a file.

    Args:
        path: a file of one of the formats in `LOADERS`.
        arch: the factory of the network of a state dict, e.g. "torchvision:resnet18" or "models:resnet20".
        arch_kwargs: keyword arguments of the factory.
        trust: whether the file may run code.
        only_if_needed: whether the factory is for state dicts among several files; other files then ignore it.

    Raises:
        InputError: the file is refused; the message starts with its name or with `--arch`.
    """
    artefact = open_artefact(Path(path))
    loader = next((row for row in LOADERS if row.recognises(artefact)), None)
    if loader is None:
        raise _unknown_format(artefact)
    options = LoadOptions(arch, arch_kwargs or {}, trust)
    with _named(artefact.name), bounded_memory(artefact.name, artefact.size):
        model = loader.load(artefact, options)
        if model.kind != "pt2":  # its names are checked in the archive, before torch makes a graph of it
            check_names(model.module, model.name)
        check_weights(model)
    if (arch or arch_kwargs) and model.kind != "state_dict" and not only_if_needed:
        message = f"{model.name}: this is a {loader.noun}; --arch is not needed"
        raise InputError(message, "leave --arch and --arch-kwargs out")
    return model


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Turn whatever a loader meets in a file into an InputError that names the file."""
    try:
        yield
    except (PfpError, OSError):
        raise
    except Exception as error:
        raise broken(name, error) from error


def from_module(module: nn.Module, name: str) -> LoadedModel:
    """Load a network from a module in memory; the module stays unchanged.

    Args:
        module: the module, on any device and in any mode. The LoadedModel holds a copy on the CPU in eval mode.
        name: name of the network, for messages and records.

    Raises:
        InputError: the module cannot be copied, has no parameters, or has numbers that are not finite.
    """
    try:
        sha256 = _state_sha256(module)
        twin = copy.deepcopy(module).cpu().eval()
    except Exception as error:
        raise InputError(
            f"{name}: cannot be copied to the CPU ({reason(error)})",
            "save it with torch.save or torch.export.save, and pass the file",
        ) from error
    kind = "torchscript" if isinstance(module, torch.jit.ScriptModule) else "module"
    with _named(name):
        model = LoadedModel(name, kind, twin, None, known_input_size(None, {}, twin), sha256)
        check_names(twin, name)
        check_weights(model)
    return model


def _state_sha256(module: nn.Module) -> str:
    """Hash the names, dtypes, shapes and bytes of the tensors in the state dict, in the order of their names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            flat = value.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def loader_table(*rows: Loader) -> tuple[Loader, ...]:
    """Make a table of input formats.

    Raises:
        ValueError: two rows have the same name.
    """
    for i, row in enumerate(rows):
        if any(row.name == other.name for other in rows[:i]):
            raise ValueError(f"{row.name} is registered already")
    return rows


def _load_torchscript(artefact: Artefact, options: LoadOptions) -> LoadedModel:
    with artefact.path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated, but such files exist
        ends = options.trust or check_script(file, artefact.name)
        try:
            script: torch.jit.ScriptModule = torch.jit.load(file, map_location="cpu").eval()
        except Exception as error:
            raise broken(artefact.name, error) from error
    size, looping = _script_input_size(script), None if ends else artefact.path
    return LoadedModel(artefact.name, "torchscript", script, None, size, artefact.sha256, looping=looping)


def _script_input_size(script: torch.jit.ScriptModule) -> tuple[int, ...] | None:
    for value in list(script.graph.inputs())[1:2]:  # the first input is the module itself
        sizes = getattr(value.type(), "sizes", lambda: None)()
        if sizes and all(isinstance(size, int) for size in sizes):
            return tuple(sizes[1:])
    return None


def _load_onnx(artefact: Artefact, options: LoadOptions) -> LoadedModel:
    network = read_onnx(artefact.path)
    batch, *size = network.sizes or (None, None)
    known = None if None in size else tuple(each for each in size if each is not None)
    return LoadedModel(artefact.name, "onnx", network, None, known, artefact.sha256, batch, network.names)


def _refuse_safetensors(artefact: Artefact, options: LoadOptions) -> LoadedModel:
    raise InputError(
        f"{artefact.name}: this is a safetensors file; pfp reads weights that torch.save wrote",
        "convert it with `torch.save(safetensors.torch.load_file(path), 'weights.pt')` and pass that with --arch",
    )


LOADERS = loader_table(
    Loader("pt2", is_pt2, load_program, "exported program"),
    Loader("torchscript", is_torchscript, _load_torchscript, "TorchScript model"),
    Loader("pickle", is_torch_pickle, load_checkpoint),
    Loader("onnx", is_onnx, _load_onnx),
    Loader("safetensors", is_safetensors, _refuse_safetensors),
)
#: The formats of LOADERS in words, for the refusal of other files.
FORMATS = "pfp reads ONNX and PyTorch files: modules, state dicts, TorchScript and .pt2 programs"


def _unknown_format(artefact: Artefact) -> InputError:
    head = artefact.head
    if artefact.members is not None:
        what = "this is a zip archive, but not one that torch wrote"
    elif head.startswith(b"version https://git-lfs"):
        return InputError(f"{artefact.name}: this is a Git LFS pointer, not the file itself", "run `git lfs pull`")
    elif head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        what = "this is a pickle, but not one that torch.save wrote"
    elif is_text(artefact):
        what = "this is a text file"
    else:
        what = f"this is no format that pfp knows (it begins with {head[:8].hex(' ')})"
    return InputError(f"{artefact.name}: {what}; {FORMATS}", "save the model with torch.save(model, path)")
