"""What all tests share: threads, caches, a seed, how many nets are drawn, and which tests run together."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, settings

import shared_traces  # noqa: F401 - before anything imports the function
import torchvision_ops
from forked import SHORT

#: Several processes share the cores.
WORKS_BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ
if WORKS_BESIDE_OTHERS:
    torch.set_num_threads(1)

# A shell lets what it starts in the background ignore interrupts, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# no test reads or writes the scores of whoever runs them
os.environ["PFP_CACHE"] = tempfile.mkdtemp(prefix="pfp-cache.")

#: Kept, since the ops live as long as it does.
LIBRARY = torchvision_ops.define()

# Random networks: the same few in every run of the tests, or thousands of new ones when asked for.
_DRAWN = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("few", max_examples=40, **_DRAWN)
settings.register_profile("thousands", max_examples=3000, **{**_DRAWN, "derandomize": False}, print_blob=True)
settings.load_profile("few")


def pytest_collection_finish() -> None:
    """Make garbage collections rare and short: each of them looks at the million objects of torch, once a second."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """No test depends on the tests before it; networks are drawn with seed 0."""
    torch.manual_seed(1)


@pytest.fixture(scope="session", autouse=True)
def _originals_are_exported_once() -> Iterator[None]:
    """Every run writes the ONNX file of its original too, and many tests compress the same few networks."""
    from pfpcli.jobs.cache import _network
    from pfpcli.jobs.steps.export import OnnxWriter

    written: dict[str, bytes] = {}
    anew = OnnxWriter.original.fget
    assert anew is not None

    def original(writer: OnnxWriter) -> Path:
        if writer._original.exists():
            return writer._original
        graph = writer._whole
        told = repr((writer._named, graph.dynamic, graph.spatial, graph.example)).encode()
        key = hashlib.sha256(b"".join((told, *_network(graph)))).hexdigest()
        if key in written:
            writer._original.write_bytes(written[key])
        else:
            written[key] = anew(writer).read_bytes()
        return writer._original

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxWriter, "original", property(original))
        yield


@pytest.fixture(scope="session", autouse=True)
def _onnxruntime_leaves_other_cores_alone() -> Iterator[None]:
    """Its threads wait in a loop, and take the time of other workers; it has a thread for each core by default."""
    made = onnxruntime.InferenceSession.__init__

    def init(session: Any, model: Any, sess_options: Any = None, *args: Any, **kwargs: Any) -> None:
        options = sess_options or onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.intra_op_num_threads or 1
        made(session, model, options, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        if WORKS_BESIDE_OTHERS:
            patch.setattr(onnxruntime.InferenceSession, "__init__", init)
        yield


@pytest.fixture(scope="session", autouse=True)
def _latencies_are_measured_in_short() -> Iterator[None]:
    """No test judges a time, and a whole run measures two files for a second and a half."""
    from pfpcli.latency import files

    with pytest.MonkeyPatch.context() as patch:
        for name, short in SHORT.items():
            patch.setattr(files, name, short)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, tests that share something run in one of them."""
    from scheduling import Together

    config.option.loadscopereorder = False  # the count of tests says little about their seconds
    return Together(config, log)
