"""Writing: the file of a cut network, compared with torch before it counts as written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime import InferenceSession
from torch import Tensor

from pfpcli.graph.graph import Graph
from pfpcli.onnx_io.file import read_model
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.rewrite import CannotRewrite, rewrite
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch, onnx_vs_torch_in_sizes, run_onnx, session


def save(network: OnnxNetwork, whole: Graph, smaller: Graph, path: Path, samples: Sequence[Tensor]) -> float:
    """Write a cut network into a copy of its original's file, and compare the copy in onnxruntime with torch.

    Args:
        network: the network that was read from the original's file.
        whole: its traced graph.
        smaller: the graph of the cut network.
        path: the file to write.
        samples: float[N, ...] for each input, to compare on.

    Returns:
        The largest difference from torch, relative to the largest absolute number of the output.

    Raises:
        CannotRewrite: the cut cannot be written into the file, or the file fails a check; no file is left.
    """
    assert network.file is not None
    try:
        onnx.save(rewrite(read_model(network.file), network, whole, smaller), path)
        written = network.as_read(path)
        difference = onnx_vs_torch(written, smaller, samples)
        if whole.spatial and any(size is None for size in (network.sizes or ())[2:]):
            difference = max(
                difference, onnx_vs_torch_in_sizes(written, smaller, samples, network.as_read(network.file))
            )
        if difference > ONNX_TOLERANCE:
            raise CannotRewrite(f"its outputs would differ by {difference:.1e}")
        if is_valid(network.file) and not is_valid(path):
            raise CannotRewrite("the file would break the ONNX standard")
        if runs(network, network.file, samples) and not runs(network, path, samples):
            raise CannotRewrite("onnxruntime would not run its untouched nodes any more")
    except Exception as error:
        path.unlink(missing_ok=True)
        if isinstance(error, CannotRewrite):
            raise
        raise CannotRewrite(str(error).strip().partition("\n")[0]) from error
    return difference


def is_valid(file: Path) -> bool:
    """Whether a file passes onnx's checker; onnxruntime also runs some files that do not."""
    try:
        onnx.checker.check_model(file)
    except Exception:
        return False
    return True


def runs(network: OnnxNetwork, file: Path, samples: Sequence[Tensor]) -> bool:
    """Whether onnxruntime runs a file with its untouched nodes, on the samples or on the first of them.

    It does not run plugins of other programs.

    Args:
        network: the network that was read from the original's file.
        file: the original's file or one written by `save`.
        samples: float[N, ...] for each input.
    """
    try:
        opened = session(network.whole(file))
    except Exception:
        return False
    # nodes that select boxes often take one image only
    return any(_runs_on(opened, inputs) for inputs in (samples, [x[:1] for x in samples]))


def _runs_on(session: InferenceSession, inputs: Sequence[Tensor]) -> bool:
    try:
        run_onnx(session, inputs)
    except Exception:
        return False
    return True


def lost_by_export(network: OnnxNetwork, why: str) -> str:
    """Say what torch's export of a network lacks of its file, as the end of a warning: ", which ... (why)"."""
    parts = ["takes images with the channels first"] if network.has_channels_last else []
    parts += ["ends before the untouched nodes"] if network.untouched.nodes else []
    return f", which {' and '.join(parts)} ({why})" if parts else f" ({why})"


def copy(file: Path, path: Path) -> None:
    """Copy a file, with weights of external files in it."""
    onnx.save(read_model(file), path)
