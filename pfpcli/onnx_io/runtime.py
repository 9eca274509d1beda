"""onnxruntime: run an ONNX file, and compare its outputs with those of a network in torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.graph.difference import largest_difference
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import other_sizes

#: The largest accepted difference between onnxruntime and torch in float32, relative to the largest absolute number of
#: an output. A largest number below _LEAST counts as _LEAST: small outputs such as probabilities near 0 are sums that
#: nearly cancel, and each runtime rounds them differently.
ONNX_TOLERANCE, _LEAST = 1e-4, 1e-2
#: The provider of onnxruntime that every machine has.
CPU = "CPUExecutionProvider"


def run_onnx(session: onnxruntime.InferenceSession, inputs: Sequence[Tensor]) -> list[Any]:
    """Run a session.

    Args:
        session: the session.
        inputs: one tensor for each input of the file, in the order of its signature.

    Returns:
        The outputs as numpy arrays.
    """
    feeds = {spec.name: x.numpy() for spec, x in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, feeds))


def session(
    file: Path | onnx.ModelProto, threads: int | None = None, provider: str = CPU
) -> onnxruntime.InferenceSession:
    """Open an onnxruntime session.

    Args:
        file: an ONNX file or its content.
        threads: number of threads; None uses all cores.
        provider: of onnxruntime, e.g. "CUDAExecutionProvider".
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised as well
    options.intra_op_num_threads = threads or 0
    given: Path | bytes = file if isinstance(file, Path) else file.SerializeToString()
    if isinstance(given, Path) and os.fsencode(given).decode("utf-8", "ignore") != str(given):
        given = given.read_bytes()  # onnxruntime takes no path that is not UTF-8
    return onnxruntime.InferenceSession(given, options, providers=[provider])


class OnnxRunner:
    """An ONNX file that is called as a network in torch is, on the CPU.

    Args:
        file: an ONNX file or its content, with one input.
    """

    def __init__(self, file: Path | onnx.ModelProto) -> None:
        self._session = session(file)

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Return the outputs for a batch, float[N, ...], on the CPU."""
        return [torch.from_numpy(np.asarray(output)) for output in run_onnx(self._session, [images.cpu()])]

    @contextmanager
    def on(self, device: torch.device | str) -> Iterator[None]:
        """Do nothing: onnxruntime stays on the CPU, whatever device other networks are on within the block."""
        yield


def onnx_vs_torch_in_sizes(
    file: Path | onnx.ModelProto,
    graph: Graph,
    samples: Sequence[Tensor],
    original: Path | onnx.ModelProto | None = None,
) -> float:
    """Compute the same on images of other sizes.

    Args:
        file: as in `onnx_vs_torch`.
        graph: as there.
        samples: as there.
        original: a file that the file was made of; sizes that it does not take do not count.
    """
    found = 0.0
    opened, before = session(file), None if original is None else session(original)
    for inputs in other_sizes(samples):
        try:
            with torch.no_grad():
                expected = tree_leaves(graph(*inputs))
            if before is not None:
                run_onnx(before, inputs)
        except Exception:  # the network does not take this size
            continue
        found = max(found, largest_difference(run_onnx(opened, inputs), expected, _LEAST))
    return found


def onnx_vs_torch(file: Path | onnx.ModelProto, graph: Graph, samples: Sequence[Tensor]) -> float:
    """Compute the largest difference between a file in onnxruntime and a network in torch.

    Args:
        file: an ONNX file or its content.
        graph: the network.
        samples: float[N, ...] for each input.

    Returns:
        The largest difference of any output, as `largest_difference` defines it.
    """
    with torch.no_grad():
        expected = [x for x in tree_leaves(graph(*samples)) if isinstance(x, Tensor)]
    found = run_onnx(session(file), samples)
    return largest_difference(found, expected, _LEAST)
