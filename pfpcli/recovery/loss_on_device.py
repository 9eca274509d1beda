"""Loss on a device: compute a loss in the fastest memory format and precision that work for the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor

from pfpcli.recovery.training_batches import Labels, TrainingBatches

#: `loss(x, labels, generator)` of a batch on the device of the network: one number with a gradient.
Loss = Callable[[Tensor, Labels, torch.Generator], Tensor]


def on_device(loss: Loss, batches: TrainingBatches, device: torch.device) -> Loss:
    """The loss, computed on a device for batches on the CPU.

    The channels-last format comes first; a network with views that were traced for channels first fails with it.
    Products use 16 bits where the device has instructions for them. The first pair of format and precision with which a
    forward and a backward pass succeed is taken.
    """
    precisions = dict.fromkeys((_half_precision(device), None))
    formats = (torch.channels_last, torch.contiguous_format)
    *choices, plain = [(layout, precision) for precision in precisions for layout in formats]
    for layout, precision in choices:
        x, labels = next(batches.epoch(0))
        chosen = _with(loss, device, layout, precision)
        with contextlib.suppress(RuntimeError):
            chosen(x, labels, batches.generator(0, 0)).backward()
            return chosen
    return _with(loss, device, *plain)


def _with(loss: Loss, device: torch.device, layout: torch.memory_format, precision: torch.dtype | None) -> Loss:
    """The loss with the images in a memory format and the products in a precision; None is float32."""

    def placed(x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
        x = x.to(device)
        x = x.contiguous(memory_format=layout) if x.dim() == 4 else x
        with torch.autocast(device.type, precision or torch.float16, enabled=precision is not None):
            return loss(x, labels, generator)

    return placed


def _half_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type that a device multiplies fast, or None."""
    if device.type == "cuda":
        return torch.float16
    # torch has no public name for this
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if supported is not None and supported() else None
