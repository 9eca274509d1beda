"""What all tests share: threads, a cache of scores, a seed, how many nets are drawn, and which tests run together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import HealthCheck, settings

import torchvision_ops
from zoo_blocks import NETS

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share something that takes long run in one worker (`--dist loadgroup`).

    They share the trace of a network of the zoo, or what a fixture makes once a file.
    """
    for item in items:
        name = _network(item) or _file_of_shared_fixtures(item)
        if name and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(name))


def _network(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    values = [call.params.get("name"), call.params.get("net")] if call else []
    return next((value for value in values if isinstance(value, str) and value in NETS), None)


def _file_of_shared_fixtures(item: pytest.Item) -> str | None:
    """The file of a test that asks for a fixture of a module."""
    fixtures = item._fixtureinfo.name2fixturedefs.values()  # type: ignore[attr-defined]
    return str(item.path) if any(each[-1].scope == "module" for each in fixtures) else None
