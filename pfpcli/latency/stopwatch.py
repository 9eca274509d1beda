"""Stopwatch: the times of the operators of small ONNX models.

This file needs Python, numpy and onnxruntime alone: `pfp latency MODEL --pack` copies it to other machines.

onnxruntime's profiler times each node. Nodes whose name begins with "<number>/" belong to the operator of that number;
all other nodes only make its inputs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
import time
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

#: Runs that are not counted, in which the caches fill; the most and the fewest counted runs; seconds after which a
#: model is run no more.
WARM_UP, MOST_RUNS, FEWEST_RUNS, SECONDS = 3, 20, 4, 0.6
#: The time of a node is this quantile of its times: other work on the machine only makes a node slower.
QUANTILE = 0.25
PROVIDER = "CPUExecutionProvider"
_OWNED = re.compile(r"^(\d+)/")
#: Nodes that change the layout of a tensor.
_REORDERS = ("ReorderInput", "ReorderOutput")


def machine(threads: int | None, provider: str) -> dict[str, Any]:
    """What the times depend on.

    Args:
        threads: of onnxruntime; None for all cores.
        provider: of onnxruntime, e.g. "CPUExecutionProvider".
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "onnxruntime": onnxruntime.__version__,
        "provider": provider,
        "threads": threads or os.cpu_count() or 1,
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


@dataclass(frozen=True)
class Timed:
    """The times of the operators of one model.

    Attributes:
        operators: number of an operator -> (milliseconds, whether it computes in a blocked layout).
        reorder_ns: for each change of a tensor's layout, the nanoseconds that one number took.
    """

    operators: dict[int, tuple[float, bool]]
    reorder_ns: list[float]


def time_operators(model: bytes, threads: int | None, provider: str) -> Timed:
    """Time the operators of a model.

    Args:
        model: an ONNX file with float inputs of fixed shapes.
        threads: of onnxruntime; None for all cores.
        provider: of onnxruntime.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = _options(threads)
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
        feeds, stop = _random_inputs(session), time.perf_counter() + SECONDS
        for run in range(WARM_UP + MOST_RUNS):
            if run >= WARM_UP + FEWEST_RUNS and time.perf_counter() > stop:
                break
            session.run([], feeds)
        with open(session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
    return _of_operators(events)


def time_network(model: bytes, threads: int | None, provider: str) -> float:
    """Return the milliseconds that one run of a whole network takes."""
    session = onnxruntime.InferenceSession(model, _options(threads), providers=[provider])
    feeds, times = _random_inputs(session), []
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
    options.log_severity_level = 3
    return options


def _random_inputs(session: onnxruntime.InferenceSession) -> dict[str, Any]:
    """Return random inputs; a size that the file leaves open is 1."""
    rng = np.random.default_rng(0)
    shapes = {each.name: [n if isinstance(n, int) else 1 for n in each.shape] for each in session.get_inputs()}
    return {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}


def _of_operators(events: list[dict[str, Any]]) -> Timed:
    """Return the times of the operators, from the events of the profiler."""
    durations: dict[str, list[float]] = defaultdict(list)
    moved: dict[str, int] = {}
    for event in events:
        name = str(event.get("name", ""))
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        durations[name].append(event["dur"] / 1000)
        if event["args"].get("op_name") in _REORDERS:
            shapes = event["args"].get("output_type_shape") or [{}]
            moved[name] = int(np.prod(next(iter(shapes[0].values()), [0])))
    usual = {name: float(np.quantile(times[WARM_UP:], QUANTILE)) for name, times in durations.items()}
    operators: dict[int, tuple[float, bool]] = {}
    for name, milliseconds in usual.items():
        owned = _OWNED.match(name)
        if owned:
            before, blocked = operators.get(int(owned[1]), (0.0, False))
            operators[int(owned[1])] = before + milliseconds, blocked or "_nchwc" in name
    return Timed(operators, [1e6 * usual[name] / numbers for name, numbers in moved.items() if numbers])


def main() -> None:
    """Time the operators of the pack that this file is in, and write the table."""
    parser = argparse.ArgumentParser(description="Time the layers of a network in onnxruntime, for `pfp compress`.")
    parser.add_argument("table", help="the JSON file to write")
    parser.add_argument("--threads", type=int, help="threads of onnxruntime; all cores by default")
    parser.add_argument("--provider", default=PROVIDER, help="of onnxruntime; %(default)s by default")
    given = parser.parse_args()
    times: dict[str, tuple[float, bool]] = {}
    reorders: list[float] = []
    with zipfile.ZipFile(sys.argv[0]) as pack:
        for part in json.loads(pack.read("operators.json")):
            found = time_operators(pack.read(part["file"]), given.threads, given.provider)
            times.update((part["operators"][number], each) for number, each in found.operators.items())
            reorders += found.reorder_ns
            print(f"{len(times)} operators timed", file=sys.stderr)
        network = time_network(pack.read("network.onnx"), given.threads, given.provider)
    table = {
        "machine": machine(given.threads, given.provider),
        "operators": times,
        "reorder_ns": float(np.median(reorders)) if reorders else 0.0,
        "network_ms": network,
    }
    with open(given.table, "w", encoding="utf-8") as file:
        json.dump(table, file, indent=1)
    print(f"{given.table}: {len(times)} operators; the whole network takes {network:.3g} ms", file=sys.stderr)


if __name__ == "__main__":
    main()
