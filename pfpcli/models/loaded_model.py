"""A loaded network, and the check that its weights can be scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pfpcli.errors import InputError
from pfpcli.graph.graph import Names
from pfpcli.limits import check_stored
from pfpcli.models.scripts import check_ends
from pfpcli.onnx_io.network import OnnxNetwork


@dataclass(frozen=True)
class LoadedModel:
    """A network and where it comes from.

    Attributes:
        name: file name without folders, e.g. "model.pt", or the name of a module in memory.
        kind: "module", "state_dict" (also of a checkpoint), "torchscript", "pt2" or "onnx".
        module: callable on float[N, ...]; in eval mode, on the CPU.
        program: the ExportedProgram of a .pt2 file, else None.
        input_size: shape of one input without the batch, None if neither the file nor the library gives it.
        sha256: sha256 in hex of the file's bytes, or of the state dict of a module in memory.
        batch: the only batch size that the network takes, None if it is free or not given.
        names: names of inputs and outputs that the file has and the forward does not.
        looping: path of a script that may not end; None if it ends, or may do what it wants.
    """

    name: str
    kind: str
    module: nn.Module
    program: torch.export.ExportedProgram | None
    input_size: tuple[int, ...] | None
    sha256: str
    batch: int | None = None
    names: Names | None = None
    looping: Path | None = None

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether the forward pass runs on one input of that shape."""
        if self.looping is not None:
            check_ends(self.looping, (self.batch or 1, *size))
        try:
            with torch.no_grad():
                self.module(torch.zeros(self.batch or 1, *size))
        except Exception:
            return False
        return True


def check_weights(model: LoadedModel) -> None:
    """Check that a network has parameters, and that its numbers are finite.

    Raises:
        InputError: it has no parameters, a number is NaN, or a parameter is infinite.
    """
    parameters = dict(model.module.named_parameters())
    buffers = dict(model.module.named_buffers())
    # a frozen script keeps its weights as constants
    if not parameters and not isinstance(model.module, torch.jit.ScriptModule):
        is_onnx = isinstance(model.module, OnnxNetwork)
        what = "graph" if is_onnx else type(model.module).__name__
        hint = "export it with its weights in it" if is_onnx else ""
        raise InputError(f"{model.name}: holds a {what} without parameters; nothing can be cut", hint)
    for name, value in (parameters | buffers).items():
        check_stored(model.name, name, value)
        if not (value.is_floating_point() or value.is_complex()) or value.isfinite().all():
            continue
        nans = int(value.isnan().sum())
        # an attention mask is a buffer and holds -inf on purpose
        infinities = int((value.isinf() if name in parameters else value.isposinf()).sum())
        if nans or infinities:
            what = " and ".join(f"{n:,} {word}" for n, word in ((nans, "NaN"), (infinities, "infinite")) if n)
            raise InputError(
                f"{model.name}: {name} holds {what} of {value.numel():,} numbers",
                "use a checkpoint from before the training diverged",
            )
