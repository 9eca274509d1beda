"""What all tests share: threads, a cache of scores, a seed, how many nets are drawn, and which tests run together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

import torchvision_ops

if "PYTEST_XDIST_WORKER" in os.environ:  # the cores are shared among processes
    torch.set_num_threads(1)

# no test reads or writes the scores of whoever runs them
os.environ["PFP_CACHE"] = tempfile.mkdtemp(prefix="pfp-cache.")

#: Kept, since the ops live as long as it does.
LIBRARY = torchvision_ops.define()

# Random networks: the same few in every run of the tests, or thousands of new ones when asked for.
_DRAWN = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("few", max_examples=40, **_DRAWN)
settings.register_profile("thousands", max_examples=3000, **{**_DRAWN, "derandomize": False}, print_blob=True)
settings.load_profile("few")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """No test depends on the tests before it; networks are drawn with seed 0."""
    torch.manual_seed(1)


@pytest.fixture(scope="session", autouse=True)
def _exporter_builds_its_table_once() -> Iterator[None]:
    """Torch's ONNX exporter builds its table of ops anew for every file: a third of the time of a tiny network."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _latencies_are_measured_in_short() -> Iterator[None]:
    """No test judges a time, and a whole run measures two files for a second and a half."""
    from pfpcli.latency import files

    with pytest.MonkeyPatch.context() as patch:
        for name, short in (("PAUSE", 0.0), ("WARM_UP", 1), ("BLOCK", 2), ("BLOCKS", 3), ("LEAST", 0.0)):
            patch.setattr(files, name, short)
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several workers, tests that share something run in one of them."""
    from scheduling import Together

    config.option.loadscopereorder = False  # the count of tests says little about their seconds
    return Together(config, log)
