"""Stopwatch: the times of the operators of small ONNX models.

This file needs Python, numpy and onnxruntime alone: `pfp latency MODEL --pack` copies it to other machines.

onnxruntime's profiler times each node. Nodes whose name begins with "<number>/" belong to the operator of that number;
all other nodes only make its inputs.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import platform
import re
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

#: Runs that are not counted, in which the caches fill; the most and the fewest counted runs; seconds after which a
#: model is run no more.
WARM_UP, MOST_RUNS, FEWEST_RUNS, SECONDS = 3, 20, 4, 0.6
#: The time of a node is this quantile of its times: other work on the machine only makes a node slower.
QUANTILE = 0.25
PROVIDER, FLOAT = "CPUExecutionProvider", "float32"
#: Optimisers that compute once what several operators of a small model compute: the others would take no time.
MERGING = ["CommonSubexpressionElimination"]
_OWNED = re.compile(r"\d+/")
#: Nodes with weights.
_WEIGHTED = (
    "Conv",
    "FusedConv",
    "ConvTranspose",
    "Gemm",
    "FusedGemm",
    "MatMul",
    "FusedMatMul",
    "QLinearConv",
    "QGemm",
    "QLinearMatMul",
)


def machine(threads: int | None, provider: str, precision: str = FLOAT) -> dict[str, Any]:
    """What the times depend on.

    Args:
        threads: of onnxruntime; None for all cores.
        provider: of onnxruntime, e.g. "CPUExecutionProvider".
        precision: of the networks; the table of one that is `FLOAT` does not name it.
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "onnxruntime": onnxruntime.__version__,
        "provider": provider,
        "threads": threads or os.cpu_count() or 1,
        **({} if precision == FLOAT else {"precision": precision}),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def time_operators(model: bytes, threads: int | None, provider: str) -> dict[int, float]:
    """Time the operators of a model: number of an operator -> milliseconds.

    Args:
        model: an ONNX file with float inputs.
        threads: of onnxruntime; None for all cores.
        provider: of onnxruntime.
    """
    return _of_operators(_events(model, threads, provider, without=MERGING))


class NodeTimed(NamedTuple):
    """A node with weights: the shapes of what it reads and makes, without the batch, and its milliseconds."""

    read: tuple[int, ...]
    made: tuple[int, ...]
    ms: float


def time_nodes(model: bytes, shape: Sequence[int], threads: int | None, provider: str) -> list[NodeTimed]:
    """Time each node with weights; returns them in the order of their runs.

    Args:
        model: an ONNX file with one float input.
        shape: of its input.
        threads: of onnxruntime; None for all cores.
        provider: of onnxruntime.
    """
    times: dict[str, list[float]] = defaultdict(list)
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for event in _events(model, threads, provider, shape):
        given = event.get("args", {})
        if event.get("cat") == "Node" and given.get("op_name") in _WEIGHTED:
            shapes[event["name"]] = _shape(given.get("input_type_shape")), _shape(given.get("output_type_shape"))
            times[event["name"]].append(event["dur"] / 1000)
    return [NodeTimed(*shapes[name], float(np.quantile(each[WARM_UP:], QUANTILE))) for name, each in times.items()]


def _shape(told: list[dict[str, list[int]]] | None) -> tuple[int, ...]:
    """Return the shape of the first tensor that an event tells of, without the batch."""
    return tuple(next(iter((told or [{}])[0].values()), [0]))[1:]


def _events(
    model: bytes,
    threads: int | None,
    provider: str,
    shape: Sequence[int] | None = None,
    without: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Run a model under the profiler; returns its events. Without: optimisers that are left out."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(model, options, providers=[provider], disabled_optimizers=[*without])
        feeds, stop = _random_inputs(session, shape), time.perf_counter() + SECONDS
        for run in range(WARM_UP + MOST_RUNS):
            if run >= WARM_UP + FEWEST_RUNS and time.perf_counter() > stop:
                break
            session.run([], feeds)
        with open(session.end_profiling(), encoding="utf-8") as file:
            try:
                events: list[dict[str, Any]] = json.load(file)
            except ValueError as error:  # the runtime does not say that the disk is full
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "folder for temporary files") from error
    return events


def time_network(model: bytes, shape: Sequence[int], threads: int | None, provider: str) -> float:
    """Return the milliseconds that one run of a whole network takes; shape: of its input."""
    session = onnxruntime.InferenceSession(model, _options(threads), providers=[provider])
    feeds, times = _random_inputs(session, shape), []
    stop = time.perf_counter() + 10 * SECONDS
    for run in range(WARM_UP + 10 * MOST_RUNS):
        if run >= WARM_UP + FEWEST_RUNS and time.perf_counter() > stop:
            break
        start = time.perf_counter()
        session.run(None, feeds)
        times.append(1000 * (time.perf_counter() - start))
    return float(np.quantile(times[WARM_UP:], QUANTILE))


def _options(threads: int | None) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # errors are raised as well
    return options


def _random_inputs(session: onnxruntime.InferenceSession, shape: Sequence[int] | None = None) -> dict[str, Any]:
    """Return random inputs; shape: of the only input, where the file leaves sizes open."""
    rng = np.random.default_rng(0)
    return {each.name: rng.random(shape or each.shape, dtype=np.float32) for each in session.get_inputs()}


def _of_operators(events: list[dict[str, Any]]) -> dict[int, float]:
    """Return the times of the operators, from the events of the profiler."""
    durations: dict[str, list[float]] = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") == "Node" and name.endswith("_kernel_time") and _OWNED.match(name):
            durations[name].append(event["dur"] / 1000)
    found: dict[int, float] = defaultdict(float)
    for name, times in durations.items():
        found[int(name.partition("/")[0])] += float(np.quantile(times[WARM_UP:], QUANTILE))
    return found


def main() -> None:
    """Time the operators of the pack that this file is in, and write the table."""
    parser = argparse.ArgumentParser(description="Time the layers of a network in onnxruntime, for `pfp compress`.")
    parser.add_argument("table", help="the JSON file to write")
    parser.add_argument("--threads", type=int, help="threads of onnxruntime; all cores by default")
    parser.add_argument("--provider", default=PROVIDER, help="of onnxruntime; %(default)s by default")
    given = parser.parse_args()
    times: dict[str, float] = {}
    with zipfile.ZipFile(sys.argv[0]) as pack:
        listed = json.loads(pack.read("operators.json"))
        for part in listed["parts"]:
            found = time_operators(pack.read(part["file"]), given.threads, given.provider)
            times.update((key, found.get(number, 0.0)) for number, key in enumerate(part["operators"]))
            print(f"{len(times)} operators timed", file=sys.stderr)
        network = time_network(pack.read("network.onnx"), listed["input"], given.threads, given.provider)
    table = {
        "machine": machine(given.threads, given.provider, listed["precision"]),
        "operators": times,
        "network_ms": network,
    }
    with open(given.table, "w", encoding="utf-8") as file:
        json.dump(table, file, indent=1)
    print(f"{given.table}: {len(times)} operators; the whole network takes {network:.3g} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
