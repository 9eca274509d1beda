"""Cache: scores and curves, kept under a key of their content, so that another budget need not measure again.

A key covers everything that a score depends on: the source of pfp, the version of torch, the traced network with all
its tensors, the bytes of the images and their preprocessing, the criterion and its settings. A file that cannot be read
counts as missing. `step_store` has the steps of a run that has not finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from pfpcli import _version, processes
from pfpcli.cache_folder import cache_folder, replace
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.images.calibration import Division
from pfpcli.latency.files import Latency
from pfpcli.planning.curves import MEASURED, Curve
from pfpcli.scoring.scores import LayerScores, Scores
from pfpcli.settings import ScoringSettings

#: At most this many files are kept; the oldest are deleted first.
MOST_FILES = 200
#: What a file raises that is damaged.
_BROKEN = (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile, zlib.error)
#: The folder of the whole package: a change of any source makes another key.
_PACKAGE = Path(_version.__file__).parent


def key(groups: Groups, readers: list[Reader], division: Division, settings: ScoringSettings, function: str) -> str:
    """The key of the scores that a criterion gives a network on images: sha256 in hex.

    Args:
        groups: the groups of the network.
        readers: the layers that read channels.
        division: the images.
        settings: of scoring.
        function: the function of the criterion, as in `pfpcli.scoring.criteria.CRITERIA`.
    """
    digest = hashlib.sha256()
    images = (part for indices in (division.scored, division.fitted) for part in _images(division, indices))
    for part in (*_program(), *_network(groups.labelled.graph), *images):
        digest.update(hashlib.sha256(part).digest())
    # frozen channels are not scored, so the key depends on which ones are frozen
    for reader in readers:
        digest.update(reader.units.tobytes() + reader.heads.tobytes())
    digest.update(json.dumps([function, settings.reduce, settings.seed]).encode())
    return digest.hexdigest()


def _program() -> Iterator[bytes]:
    """The version of torch, and the source files of pfp as they are on disk."""
    yield torch.__version__.encode()
    for path in sorted(_PACKAGE.rglob("*.py")):
        yield path.read_bytes()


def _network(graph: Graph) -> Iterator[bytes]:
    yield str(graph.module.graph).encode()
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            tensor = graph.tensor(node).detach().cpu().contiguous()
            yield f"{node.target} {tensor.dtype} {tuple(tensor.shape)}".encode()
            yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def _images(division: Division, indices: NDArray[np.int64]) -> Iterator[bytes]:
    """Some calibration images: which they are, their labels and bytes, and what is done to them."""
    calibration = division.calibration
    images = calibration.images
    yield json.dumps([calibration.preprocess.recorded(), calibration.size, calibration.convert]).encode()
    yield indices.tobytes()
    if images.labels is not None:
        yield images.labels[indices].tobytes()
    for name in sorted({images.locate(int(index))[0].name for index in indices}):
        yield images.digest(name)


def key_of_curves(name: str, division: Division, orders: Sequence[tuple[Group, NDArray[np.int64]]]) -> str:
    """The key of the curves of groups.

    Args:
        name: the key of their scores.
        division: the images: curves are fitted to some and measured on others.
        orders: the units of each group in order.
    """
    digest = hashlib.sha256(name.encode())
    for indices in (division.fitted, division.checked):
        for part in _images(division, indices):
            digest.update(hashlib.sha256(part).digest())
    for _, order in orders:
        digest.update(json.dumps(order.shape).encode() + order.tobytes())
    return digest.hexdigest()


def key_of_job(graph: Graph, division: Division) -> str:
    """The key of all networks that a job makes of one network on images, whatever their purpose: sha256 in hex."""
    digest = hashlib.sha256()
    for part in (*_program(), *_network(graph), repr(graph.roles).encode(), *_folders(division)):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def program() -> str:
    """The hash of the source of pfp and of the version of torch, in hex."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in _program())).hexdigest()


def network(graph: Graph) -> bytes:
    """The hash of a network with its tensors."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in _network(graph))).digest()


def _folders(division: Division) -> Iterator[bytes]:
    """The folders of images, their labels, what is done to the images, and their division."""
    calibration = division.calibration
    yield json.dumps([calibration.preprocess.recorded(), calibration.size, calibration.convert]).encode()
    for images in (calibration.images, division.judges):
        yield images.sha256.encode()
        yield b"" if images.labels is None else images.labels.tobytes()
        for target in images.targets or ():
            yield target.read_bytes()
    for indices in (division.scored, division.fitted, division.checked, division.judged):
        yield indices.tobytes()


def load(name: str) -> Scores | None:
    """The scores under a key, or None."""
    held = _read(name)
    if held is None:
        return None
    try:
        told = json.loads(str(held["told"]))
        layers = tuple(
            LayerScores(**layer, **{array: held[f"{i}.{array}"] for array in _arrays()})
            for i, layer in enumerate(told.pop("layers"))
        )
        return Scores(held["unit"], layers, told["samples"], tuple(told["remarks"]))
    except (ValueError, KeyError, TypeError):
        return None


def save(name: str, scores: Scores) -> None:
    """Keep scores under a key, if the cache folder can be written."""
    arrays: dict[str, Any] = {"unit": scores.unit}
    layers = []
    for i, layer in enumerate(scores.layers):
        values = {field.name: getattr(layer, field.name) for field in fields(layer)}
        arrays |= {f"{i}.{array}": values.pop(array) for array in _arrays()}
        layers.append(values)
    told = {"layers": layers, "samples": scores.samples, "remarks": scores.remarks}
    _write(name, {"told": np.array(json.dumps(told)), **arrays})


def load_curves(name: str) -> list[Curve] | None:
    """The curves under a key, or None."""
    held = _read(name)
    if held is None:
        return None
    try:
        steps = held["steps"].tolist()
        return [Curve(n, held[f"{i}.kept"], {of: held[f"{i}.{of}"] for of in MEASURED}) for i, n in enumerate(steps)]
    except KeyError:
        return None


def save_curves(name: str, curves: Sequence[Curve]) -> None:
    """Keep curves under a key, if the cache folder can be written."""
    arrays: dict[str, Any] = {"steps": np.asarray([curve.positions for curve in curves])}
    for i, curve in enumerate(curves):
        arrays |= {f"{i}.kept": curve.kept, **{f"{i}.{of}": curve.losses[of] for of in MEASURED}}
    _write(name, arrays)


def key_of_race(name: str, machine: dict[str, Any], widths: Sequence[Sequence[int] | None]) -> str:
    """The key of the times of the files of plans.

    Args:
        name: the key of their scores.
        machine: what times depend on, see `stopwatch.machine`.
        widths: of each plan; None for the original.
    """
    return hashlib.sha256(json.dumps([name, machine, widths]).encode()).hexdigest()


def load_race(name: str) -> list[Latency] | None:
    """The latencies under a key, or None."""
    held = _read(name)
    try:
        rows = () if held is None else zip(held["latencies"].tolist(), held["blocks"].tolist(), strict=True)
        return [Latency(ms, iqr, int(runs), tuple(blocks)) for (ms, iqr, runs), blocks in rows] or None
    except (KeyError, TypeError, ValueError):
        return None


def save_race(name: str, found: Sequence[Latency]) -> None:
    """Keep latencies under a key, if the cache folder can be written."""
    latencies = np.asarray([(each.median_ms, each.iqr_ms, each.runs) for each in found])
    _write(name, {"latencies": latencies, "blocks": np.asarray([each.blocks for each in found])})


def _read(name: str) -> dict[str, Any] | None:
    return processes.of_first(lambda: _found(name))


def _found(name: str) -> dict[str, Any] | None:
    path = cache_folder() / f"{name}.npz"
    try:
        if not path.is_file():  # a pipe would be read for ever
            return None
        with np.load(path, allow_pickle=False) as held:
            return dict(held)
    except _BROKEN:
        return None


def _write(name: str, arrays: dict[str, Any]) -> None:
    if processes.rank():
        return
    with contextlib.suppress(OSError):
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        replace(cache_folder() / f"{name}.npz", buffer.getvalue())
        kept = sorted(cache_folder().glob("*.npz"), key=lambda path: path.stat().st_mtime_ns)
        for path in kept[:-MOST_FILES]:
            path.unlink()


def _arrays() -> tuple[str, ...]:
    """The fields of a layer's scores that are arrays."""
    return "channels", "units", "shares"
