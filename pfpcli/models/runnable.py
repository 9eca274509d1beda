"""Runnable: a network of any format that computes its outputs. ONNX files run in onnxruntime, all others in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.errors import InputError
from pfpcli.limits import bounded_memory
from pfpcli.models.artefact import Artefact, LoadOptions, is_onnx, open_artefact
from pfpcli.models.load import load
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.models.pickles import broken
from pfpcli.models.scripts import check_ends
from pfpcli.onnx_io.file import graph_inputs, has_channels_last, read_model, sizes_of, with_channels_first
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.runtime import session

#: Type of an input in onnxruntime -> the type of its tensor.
_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}


class Computed(NamedTuple):
    """The outputs of a network.

    Attributes:
        names: their names, where the network has some; otherwise empty.
        values: the outputs, in the order of the network.
    """

    names: tuple[str, ...]
    values: list[Tensor]


@dataclass(frozen=True)
class Runnable:
    """A network that computes its outputs.

    Attributes:
        name: name of its file.
        runtime: "torch" or "onnxruntime".
        sizes: (N, C, H, W) of the input, None for a free size; None where the network does not say.
        usual: shape of one input that the network is made for, without the batch; None where it does not say.
        compute: float32[N, ...] -> outputs; raises what the runtime raises.
        source: the network as pfp has loaded it; the path of an ONNX file, which pfp need not read to run it.
    """

    name: str
    runtime: str
    sizes: tuple[int | None, ...] | None
    usual: tuple[int, ...] | None
    compute: Callable[[Tensor], Computed]
    source: LoadedModel | Path

    @property
    def batch(self) -> int | None:
        """The only batch size that the network takes; None where it is free or not known."""
        return self.sizes[0] if self.sizes else None

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """Shape of one input, without the batch; None where it is not known."""
        return self.usual

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether the network runs on an input of this shape."""
        try:
            self.compute(torch.zeros(self.batch or 1, *size))
        except Exception:
            return False
        return True

    def run(self, x: Tensor) -> Computed:
        """Compute the outputs of a batch: float32[N, ...].

        Raises:
            InputError: the network does not run on it.
        """
        try:
            return self.compute(x)
        except InputError:
            raise
        except Exception as error:
            said = " ".join((str(error).strip().splitlines() or [type(error).__name__])[0].split())[:160]
            raise InputError(
                f"{self.name}: does not run on inputs of {'×'.join(map(str, x.shape[1:]))} ({said})",
                "pass the size that both networks take with --input-size C,H,W",
            ) from error


def open_runnable(path: Path, options: LoadOptions, *, as_read: bool = False) -> Runnable:
    """Open a network.

    Args:
        path: a file of any format that pfp reads, or any ONNX file with one input that onnxruntime runs.
        options: the architecture of a state dict, which other files ignore, and whether the file is trusted.
        as_read: leave the nodes of an ONNX file out that pfp does not follow, such as the selection of boxes.

    Raises:
        InputError: the file is refused.
    """
    artefact = open_artefact(path)
    if is_onnx(artefact):
        return _open_onnx(artefact, as_read)
    return of_model(
        load(path, arch=options.arch, arch_kwargs=dict(options.arch_kwargs), trust=options.trust, only_if_needed=True)
    )


def of_model(model: LoadedModel) -> Runnable:
    """Return a loaded network that computes in torch."""

    def compute(x: Tensor) -> Computed:
        if model.looping is not None:
            check_ends(model.looping, tuple(x.shape))
        with torch.no_grad():
            found = model.module(x)
        values = [each for each in tree_leaves(found) if isinstance(each, Tensor)]
        is_named = isinstance(found, dict) and len(found) == len(values)
        return Computed(tuple(map(str, found)) if is_named else (), values)

    sizes = None if model.input_size is None else (model.batch, *[None] * len(model.input_size))
    return Runnable(model.name, "torch", sizes, model.input_size, compute, model)


def _open_onnx(artefact: Artefact, as_read: bool) -> Runnable:
    path = artefact.path
    try:
        with bounded_memory(artefact.name, artefact.size):
            model = read_model(path)
        images = graph_inputs(model)
        if len(images) != 1:
            named = ", ".join(each.name for each in images) or "none"
            raise InputError(f"{path.name}: has {len(images)} inputs ({named}); pfp runs networks of one")
        sizes = sizes_of(images[0])
        is_turned = has_channels_last(model)
        if as_read:
            network = load(path).module
            assert isinstance(network, OnnxNetwork)
            opened = session(network.as_read(path))
        else:
            opened = session(with_channels_first(model) if is_turned else path)
    except InputError:
        raise
    except Exception as error:
        raise broken(path.name, error) from error
    if sizes is not None and is_turned:
        sizes = (sizes[0], sizes[3], sizes[1], sizes[2])
    usual = None if sizes is None or None in sizes[1:] else tuple(size for size in sizes[1:] if size is not None)
    return Runnable(path.name, "onnxruntime", sizes, usual, _in_onnxruntime(opened, path.name), path)


def _in_onnxruntime(opened: onnxruntime.InferenceSession, name: str) -> Callable[[Tensor], Computed]:
    """Return a function that computes the outputs of a session.

    Raises:
        InputError: the session reads something other than floats.
    """
    (image,) = opened.get_inputs()
    if image.type not in _TYPES:
        raise InputError(
            f"{name}: reads inputs of type {image.type}, expected floats", "cut off the conversion to floats"
        )
    kind, names = _TYPES[image.type], tuple(output.name for output in opened.get_outputs())

    def compute(x: Tensor) -> Computed:
        found: list[Any] = opened.run(None, {image.name: x.to(kind).numpy()})
        return Computed(names, [torch.as_tensor(each) for each in found])

    return compute
