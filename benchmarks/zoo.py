"""Every network of a list through the engine: trace, label, random plans, cut, and the four properties.

    python benchmarks/zoo.py [--only PATTERN] [--workers N] [--fresh] [--limit SECONDS]

One process per network, with a time limit; what is done is kept in build/zoo/ and not done again (--fresh forgets it).
Writes docs/zoo.md. Needs torchvision and timm; weights are random, nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "zoo"
PAGE = ROOT / "docs" / "zoo.md"

#: Fractions of the parameters that the random plans keep.
KEEPS = (0.3, 0.5, 0.7)
PAGE_BEGINS = """# Networks through the engine

Made by `make zoo`: the networks of `benchmarks/zoo.txt` with random weights, each in a process of its own, on one
thread. Each network is traced, labelled, cut by random plans that keep 30, 50 and 70 % of the parameters, and counted.
It is done if

- cut ≡ masked in float64 (at most 1e-9 of the largest output),
- predicted = counted,
- keep = 1 leaves every tensor as it was,
- and, at 50 %, torch ≡ onnxruntime (at most 1e-4), with a batch size that the export has not seen, and with an image
  size that it has not seen if the size is open.
"""
PAGE_EXPLAINS = """
`prunable`: what is dropped if every group loses as many channels as it can. `inexact`: groups across which a norm or
another statistic is computed, of all groups that can be cut. `cut ≡ masked` and `onnx ≡ torch`: the largest difference,
relative to the largest output. `open`: the sizes of the input that are free in the ONNX file (N batch, H height, W
width). `CPU s`: seconds of tracing, labelling and cutting. `MB`: the memory that these steps added to the process. If a
budget cannot be reached because too much is frozen, it is left out; then there is no ONNX file to compare (–).
"""
#: Of the table of results.
COLUMNS = (
    *("network", "input", "params", "prunable params", "prunable MACs", "groups", "inexact"),
    *("cut ≡ masked", "onnx ≡ torch", "open", "CPU s", "MB"),
)
#: The one that goes through ONNX.
ONNX_AT = 0.5
#: Relative difference that counts as none in float64.
EXACT = 1e-9


def listed() -> dict[str, str]:
    """The networks: library:name -> what else its line says."""
    lines = (ROOT / "benchmarks" / "zoo.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#"))


def build(name: str) -> tuple[Any, tuple[tuple[int, ...], ...]]:
    """A network with random weights in eval mode, and the sizes of its inputs without the batch."""
    import torch

    library, _, model = name.partition(":")
    words = listed()[name].split()
    sizes = tuple(tuple(map(int, word.split("x"))) for word in words if "=" not in word)
    arguments = {key: json.loads(value) for key, value in (word.split("=") for word in words if "=" in word)}
    torch.manual_seed(0)
    if library == "timm":
        import timm

        module = timm.create_model(model, pretrained=False, **arguments)
    else:
        import torchvision

        module = torchvision.models.get_model(model, weights=None, **arguments)
    module.eval()
    for tensor in module.parameters():
        if not tensor.any():  # a branch that begins at zero would make every comparison true
            torch.nn.init.normal_(tensor, std=0.02)
    for part in module.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                if tensor is not None:
                    torch.nn.init.uniform_(tensor, 0.5, 1.5)
    return module, sizes


def examine(name: str) -> dict[str, Any]:
    """Everything about one network; raises where something does not hold."""
    import numpy as np
    import torch
    from torch.utils._pytree import tree_leaves

    from pfpcli.channels.cost import Predictor, count
    from pfpcli.channels.groups import group
    from pfpcli.channels.labelling import label
    from pfpcli.channels.slicing import Slicing
    from pfpcli.cutting.cut import cut
    from pfpcli.cutting.masked import InFloat64, Masked
    from pfpcli.cutting.verify import relative
    from pfpcli.errors import BudgetError
    from pfpcli.exporting import export
    from pfpcli.exporting.program import program_of
    from pfpcli.graph.trace import trace
    from pfpcli.planning.plan import Budget
    from pfpcli.planning.planner import plan
    from pfpcli.scoring.scores import Scores

    torch.set_num_threads(1)
    module, sizes = build(name)
    example = tuple(torch.randn(2, *size) for size in sizes)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    graph = trace(module, example)
    traced = time.process_time()
    groups = group(label(graph))
    labelled = time.process_time()
    alive = groups.alive(np.zeros(0, np.int64))
    same = cut(groups.labelled, alive).graph
    done = time.process_time()
    found: dict[str, Any] = {
        "params": count(graph).params,
        "macs": count(graph).macs,
        "seconds": {"trace": traced - start, "label": labelled - traced, "cut": done - labelled},
        "megabytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1000,
        "stops": list(dict.fromkeys(graph.stops)),
        "unknown": sorted({str(node.target) for node in groups.labelled.unknown}),
        "groups": len(groups.groups),
        "prunable": len(groups.prunable),
        "inexact": sum(bool(g.inexact) for g in groups.prunable),
        "frozen": sorted({f"{g.name}: {g.frozen}" for g in groups.groups if g.frozen}),
    }
    state = graph.module.state_dict()
    if not all(torch.equal(state[key], value) for key, value in same.module.state_dict().items()):
        raise AssertionError("keep = 1 changed a tensor")
    predictor = Predictor(groups)
    nothing = predictor.predict(groups.alive(np.concatenate([g.units for g in groups.prunable] or [np.zeros(0, int)])))
    found["share"] = {
        "params": 1 - nothing.params / max(1, found["params"]),
        "macs": 1 - nothing.macs / max(1, found["macs"]),
    }
    found["kept"], found["difference"] = [], 0.0
    inputs = [torch.randn(graph.fixed_batch or 1, *size, dtype=torch.float64) for size in sizes]
    for seed, keep in enumerate(KEEPS):
        rng = np.random.default_rng(seed)
        scores = Scores(rng.random(len(groups.root)))
        try:
            planned = plan(groups, scores, Budget(keep), allocate="uniform")
        except BudgetError:
            found["kept"].append(None)
            continue
        smaller = cut(groups.labelled, planned.alive).graph
        if count(smaller) != planned.after:
            raise AssertionError(f"predicted {planned.after}, counted {count(smaller)}")
        first = tree_leaves(InFloat64(smaller.module).run(*inputs))
        second = tree_leaves(Masked(Slicing(groups.labelled, planned.alive)).run(*inputs))
        difference = max(relative(a, b) for a, b in zip(first, second, strict=True))
        found["kept"].append(planned.achieved)
        found["difference"] = max(found["difference"], difference)
        if not difference <= EXACT:
            raise AssertionError(f"cut and masked differ by {difference:.1e} at keep {keep}")
        if keep == ONNX_AT:
            samples = [torch.randn(graph.fixed_batch or 3, *size) for size in sizes]
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                exported = program_of(smaller)
                found["onnx"] = export.save_onnx(exported, smaller, export.names(smaller), path, samples)
                found["open"] = export.open_sizes(path)
    return found


def worker(name: str) -> None:
    """One network in this process; prints a JSON object as its last line."""
    try:
        result = {"name": name, "status": "ok", **examine(name)}
    except Exception as error:
        text = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:400]
        result = {"name": name, "status": "failed", "why": text}
    print("\n" + json.dumps(result))


def run(name: str, limit: float) -> dict[str, Any]:
    """One network in a process of its own."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--worker", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False)
        lines = done.stdout.strip().splitlines()
        result = json.loads(lines[-1]) if lines else {"name": name, "status": "failed", "why": done.stderr[-400:]}
    except subprocess.TimeoutExpired:
        result = {"name": name, "status": "failed", "why": f"took more than {limit:.0f} s"}
    except json.JSONDecodeError:
        result = {"name": name, "status": "failed", "why": done.stderr[-400:]}
    result["wall"] = time.perf_counter() - start
    return result


def main() -> None:
    """Run what has not been run and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", help="a pattern of names, e.g. 'timm:res*'")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="networks at a time; one for each core")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.worker:
        sys.path.insert(0, str(ROOT / "tests"))
        import conftest  # noqa: F401  (lets torchvision be imported next to a torch it was not built for)

        worker(settings.worker)
        return
    RESULTS.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        file = RESULTS / f"{name.replace(':', '.')}.json"
        if settings.fresh or not file.exists():
            result = run(name, settings.limit)
            file.write_text(json.dumps(result), encoding="utf-8")
            print(f"{result['status']:<7}{name:<44}{result['wall']:6.1f} s  {result.get('why', '')}", flush=True)

    with ThreadPoolExecutor(settings.workers) as pool:
        list(pool.map(one, [name for name in listed() if fnmatch(name, settings.only)]))
    files = [RESULTS / f"{name.replace(':', '.')}.json" for name in sorted(listed())]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.exists()]
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


def page(found: list[dict[str, Any]]) -> str:
    """All results as a Markdown page."""
    good = [result for result in found if result["status"] == "ok"]
    lines = [
        PAGE_BEGINS,
        *_summary(found, good),
        PAGE_EXPLAINS,
        f"| {' | '.join(COLUMNS)} |",
        "|---|---" + "|--:" * 7 + "|---|--:|--:|",
    ]
    described = listed()
    for result in good:
        share = result["share"]
        sizes = " ".join(word for word in described[result["name"]].split() if "=" not in word)
        free = "".join({"batch": "N", "height": "H", "width": "W"}.get(name, "") for name in result.get("open", ()))
        onnx = f"{result['onnx']:.0e}" if "onnx" in result else "–"
        lines.append(
            f"| {result['name']} | {sizes} | {result['params'] / 1e6:.1f} M "
            f"| {share['params']:.1%} | {share['macs']:.1%} "
            f"| {result['prunable']} of {result['groups']} | {result['inexact']} | {result['difference']:.0e} "
            f"| {onnx} | {free} | {_seconds(result):.1f} | {result['megabytes']:.0f} |"
        )
    failed = [f"- {result['name']}: {result['why']}" for result in found if result["status"] != "ok"]
    ops = [f"- {result['name']}: {', '.join(result['unknown'])}" for result in good if result["unknown"]]
    stops = [f"- {result['name']}: {', '.join(result['stops'])}" for result in good if result["stops"]]
    frozen = [f"- {result['name']}: {text}" for result in good if (text := _frozen(result))]
    for heading, rows in (
        ("What fails, and why", failed),
        ("Ops without a rule", ops),
        ("Followed up to ops whose sizes depend on values", stops),
        ("Frozen, other than inputs and outputs", frozen),
    ):
        lines += ["", f"## {heading}", "", *(rows or ["Nothing."])]
    return "\n".join([*lines, ""])


def _summary(found: list[dict[str, Any]], good: list[dict[str, Any]]) -> list[str]:
    lines = []
    for library in dict.fromkeys(result["name"].partition(":")[0] for result in found):
        tried = [result for result in found if result["name"].startswith(f"{library}:")]
        done = [result for result in tried if result["status"] == "ok"]
        lines.append(f"- {library}: {len(done)} of {len(tried)}")
    waiting = len(listed()) - len(found)
    if waiting:
        lines.append(f"- not run yet: {waiting}")
    shares = [result["share"]["params"] for result in good]
    below = [result["name"] for result in good if result["share"]["params"] < 0.9]
    lines.append(
        f"- prunable parameters: median {statistics.median(shares):.2%}; below 90 %: {', '.join(below) or 'none'}"
    )
    medium = [result for result in good if result["params"] <= 1e8]
    slow = [f"{result['name']} ({_seconds(result):.0f} s)" for result in medium if _seconds(result) > 10]
    lines.append(
        f"- tracing, labelling and cutting, networks of up to 100 M parameters: median "
        f"{statistics.median(map(_seconds, medium)):.1f} CPU seconds; more than 10: {', '.join(slow) or 'none'}"
    )
    lines.append(f"- memory these steps added, at most: {max(result['megabytes'] for result in medium):.0f} MB")
    return lines


def _seconds(result: dict[str, Any]) -> float:
    return float(sum(result["seconds"].values()))


def _frozen(result: dict[str, Any]) -> str:
    """Reasons and how many groups each holds back."""
    reasons = Counter(
        re.sub(r" in \S+$", "", text.partition(": ")[2])
        for text in result["frozen"]
        if not text.endswith((": output of the model", ": input of the model"))
    )
    return "; ".join(f"{reason} ×{count}" for reason, count in reasons.most_common())


if __name__ == "__main__":
    main()
