"""onnxruntime: run an ONNX file, and compare its outputs with those of a network in torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.graph.graph import Graph

#: The largest accepted difference between onnxruntime and torch in float32, relative to the largest absolute number of
#: an output. A largest number below _LEAST counts as _LEAST: small outputs such as probabilities near 0 are sums that
#: nearly cancel, and each runtime rounds them differently.
ONNX_TOLERANCE, _LEAST = 1e-4, 1e-2


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


def session(file: Path | onnx.ModelProto, threads: int | None = None) -> onnxruntime.InferenceSession:
    """Open an onnxruntime session on the CPU.

    Args:
        file: an ONNX file or its content.
        threads: number of threads; None uses all cores.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    given = file if isinstance(file, Path) else file.SerializeToString()
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])


def onnx_vs_torch(file: Path | onnx.ModelProto, graph: Graph, samples: Sequence[Tensor]) -> float:
    """Compute the largest difference between a file in onnxruntime and a network in torch.

    Args:
        file: an ONNX file or its content.
        graph: the network.
        samples: float[N, ...] for each input.

    Returns:
        The largest absolute difference of an output, relative to its largest absolute number.
    """
    with torch.no_grad():
        expected = [x for x in tree_leaves(graph.module(*samples)) if isinstance(x, Tensor)]
    found = run_onnx(session(file), samples)
    return max(_relative(a, b.detach().numpy()) for a, b in zip(found, expected, strict=True))


def _relative(found: Any, expected: Any) -> float:
    if found.shape != expected.shape:
        raise ValueError(f"an output has shape {found.shape}, torch gives {expected.shape}")
    largest = float(np.abs(expected.astype(np.float64)).max(initial=_LEAST))
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / largest
