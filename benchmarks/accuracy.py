"""What is left of the accuracy at a fraction of the MACs: pfp and other tools, one process for every point.

    python benchmarks/accuracy.py [--only PATTERN] [--report] [--data DIR] [--timeout SECONDS] [--threads N] [--again]

The points are those of `benchmarks/points.py`, in that order; `--list` prints their names,
TOOL/CRITERION/MODEL/MACS/MINUTES, which `--only` is a pattern of (e.g. '*/resnet20/0.5/0'). Each is appended to
build/accuracy/points.jsonl when it is done, and not measured again: what failed or took too long is a point as well,
and `--again` measures such points again. Writes docs/accuracy.md and docs/accuracy.svg; `--report` does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import accuracy_page
from points import Wanted, key_of, unable, wanted

ROOT = Path(__file__).resolve().parents[1]
POINTS = ROOT / "build" / "accuracy" / "points.jsonl"
PAGE, CHART = ROOT / "docs" / "accuracy.md", ROOT / "docs" / "accuracy.svg"
#: Where the networks and images are.
DATA = ROOT.parent / "shared" / "data"
#: What a record names the version of.
PACKAGES = ("torch", "torch-pruning", "onnxsim", "pfp")


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {each.metadata["Name"]: each.version for each in metadata.distributions()}
    return {name: found[name] for name in PACKAGES if name in found}


def command(point: Wanted, data: Path) -> list[str]:
    """What measures a point."""
    script = "ours.py" if point.tool == "pfp" else "peers.py"
    tool = [] if point.tool == "pfp" else ["--tool", point.tool]
    flags = {"--criterion": point.criterion, "--model": point.model, "--macs": point.asked, "--minutes": point.minutes}
    said = [str(word) for pair in flags.items() for word in pair]
    return [sys.executable, str(ROOT / "benchmarks" / script), *tool, *said, "--data", str(data)]


def measure(point: Wanted, data: Path, timeout: float, threads: int) -> dict[str, Any]:
    """The record of one point, whatever came of it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    record = {**asdict(point), "status": "ok", "threads": threads, "versions": versions()}
    try:
        done = subprocess.run(
            command(point, data), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return {**record, "status": "timeout", "why": f"not done after {timeout:g} s", "wall": round(timeout, 1)}
    wall = round(time.perf_counter() - start, 1)
    if done.returncode:
        return {**record, "status": "failed", "why": last_line(done.stderr, done.returncode), "wall": wall}
    return {**record, **json.loads(done.stdout.splitlines()[-1]), "wall": wall}


def last_line(stderr: str, code: int) -> str:
    """What a process said last."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"ended with {code}"


def read() -> dict[tuple[Any, ...], dict[str, Any]]:
    """The records that are there; of two of the same point, the later."""
    lines = POINTS.read_text(encoding="utf-8").splitlines() if POINTS.exists() else []
    return {key_of(record): record for record in map(json.loads, lines)}


def run(points: Iterable[Wanted], chosen: argparse.Namespace) -> None:
    """Measure what is not there."""
    POINTS.parent.mkdir(parents=True, exist_ok=True)
    there = read()
    for point in points:
        known = there.get(point.key())
        if known is not None and not (chosen.again and known["status"] != "ok"):
            continue
        if (why := unable(point.tool, point.criterion)) is not None:
            print(f"left out  {point.name}: {why}", flush=True)
            continue
        record = measure(point, chosen.data, chosen.timeout, chosen.threads)
        with POINTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
        said = f"{record['accuracy']:.1%}" if record["status"] == "ok" else record["why"]
        print(f"{record['status']:<9} {point.name:<60} {record['wall']:6.1f} s  {said}", flush=True)


def settings() -> argparse.Namespace:
    """What the command line says; ends the process where there is nothing to measure on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of the points to measure")
    parser.add_argument("--list", action="store_true", help="print the names of the points")
    parser.add_argument("--report", action="store_true", help="only write the page, from the points that are there")
    parser.add_argument("--again", action="store_true", help="measure again what failed or took too long")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with cifar10 and models")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one point")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of every tool; one for each core")
    chosen = parser.parse_args()
    chosen.data = chosen.data.resolve()
    if not (chosen.list or chosen.report or (chosen.data / "cifar10").is_dir()):
        parser.exit(2, "there are no images: --data names the folder with cifar10 and models\n")
    return chosen


def main() -> None:
    """Measure what is not there, and write the page."""
    chosen = settings()
    points = [point for point in wanted() if fnmatch(point.name, chosen.only)]
    if chosen.list:
        print("\n".join(point.name for point in points))
        return
    if not chosen.report:
        run(points, chosen)
    records = read()
    found = [records[point.key()] for point in wanted() if point.key() in records]
    PAGE.write_text(accuracy_page.markdown(found), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(found)} points")
    if any(accuracy_page.charted(found)):
        CHART.write_text(accuracy_page.svg(found), encoding="utf-8")


if __name__ == "__main__":
    main()
