"""A run made by hand, with numbers that do not change: what the tests of the reports and the command line show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pfpcli.records.parts import Certificate, Cost, GroupRow, LayerError, LayerRow, Quality, Verification
from pfpcli.records.runs import Run
from pfpcli.settings import Settings

BLOCKS = ((16, 10), (16, 9), (32, 20), (32, 19), (64, 37), (64, 30))


def layers() -> list[LayerRow]:
    """A stem, six blocks of two convolutions, and a classifier; the first of each block lost channels."""
    rows = [LayerRow("conv1", "conv2d", (3, 3), (16, 16), (432, 432), (442_368, 442_368))]
    for number, (size, kept) in enumerate(BLOCKS):
        for half, (reads, makes) in enumerate((((size, size), (size, kept)), ((size, kept), (size, size)))):
            params = (9 * reads[0] * makes[0], 9 * reads[1] * makes[1])
            macs = (params[0] * 1024, params[1] * 1024)
            rows.append(
                LayerRow(f"layer{number // 2 + 1}.{number % 2}.conv{half + 1}", "conv2d", reads, makes, params, macs)
            )
    return [*rows, LayerRow("linear", "linear", (64, 64), (10, 10), (650, 650), (640, 640))]


def run(**changes: Any) -> Run:
    """A run in which all went well; fields can be changed."""
    rows = layers()
    before, after = (sum(layer.params[i] for layer in rows) for i in (0, 1))
    made = Run(
        pfp_version="0.1.0",
        status="ok",
        model={"name": "model.pt", "kind": "module", "sha256": "ab" * 32, "input_size": [3, 32, 32]},
        settings=Settings(model="model.pt", calib="imgs", keep=0.546).recorded(),  # type: ignore[arg-type]
        requested={"keep": 0.546, "of": "params"},
        achieved={"keep": after / before, "exact": True},
        before=Cost(before, 40_812_544, 4 * before, 1_090_000, 2.104, 0.052),
        after=Cost(after, 24_117_248, 4 * after, 645_120, 1.324, 0.041),
        quality=Quality("accuracy", 0.912, 0.898, 0.953, 256, "held-out images", 0.21),
        verification=Verification(3.1e-15, 4.2e-6, "ok", {"cut_vs_masked": 1e-9, "onnx_vs_torch": 1e-4}),
        certificate=Certificate(
            1e-16,
            128,
            "held-out images",
            [
                LayerError("layer1.0.conv2", 16, 10, 9.31, 4201, 1.8342, 2.91, 0.352),
                LayerError("layer1.1.conv2", 16, 9, 8.05, 3920, 1.8342, 0.743, 0.215),
            ],
        ),
        calibration={
            "folder": "imgs",
            "images": 512,
            "scored": 256,
            "evaluated": 256,
            "preprocess": {"name": "unit", "describe": "unit: /255, short side 32, centre crop 32×32"},
            "skipped": 0,
            "converted": 0,
        },
        scoring={"criterion": "pfp", "reduce": "sum", "epsilon": 1.8342, "delta": 1e-16, "samples": 256},
        latency={"threads": 2, "runs": 50, "batch": 1},
        trace={"ops": 71, "unknown": {}, "dynamic_batch": True},
        layers=rows,
        groups=[
            GroupRow("input x", 3, 3, "input of the model", "", ("conv1",)),
            *(
                GroupRow(f"layer{n // 2 + 1}.{n % 2}.conv1", size, kept, "", "", (f"layer{n // 2 + 1}.{n % 2}.conv2",))
                for n, (size, kept) in enumerate(BLOCKS)
            ),
            GroupRow("linear", 10, 10, "output of the model", "", ()),
        ],
        artifacts={"onnx": "model.onnx", "pt2": "model.pt2", "pt": "model.pt", "plan": "plan.json"},
        timings={"load": 0.21, "trace": 0.4, "score": 6.132, "verify": 125.0},
        warnings=[],
        machine={"python": "3.11.7", "torch": "2.13.0", "platform": "Linux x86_64", "device": "cpu"},
        created="2026-01-02T03:04:05.678+00:00",
    )
    return replace(made, **changes)


def unlabelled(**changes: Any) -> Run:
    """A run without labels whose budget was not met exactly."""
    fields: dict[str, Any] = {
        "quality": Quality("agreement", 1.0, 0.918, 0.918, 256, "held-out images", 0.21),
        "requested": {"keep": 0.5, "of": "params"},
        "achieved": {"keep": 0.5459, "exact": False},
    }
    return run(**fields | changes)


def failed(**changes: Any) -> Run:
    """A run whose ONNX file is not the network it should be."""
    bounds = {"cut_vs_masked": 1e-9, "onnx_vs_torch": 1e-4}
    fields: dict[str, Any] = {
        "status": "failed",
        "verification": Verification(3.1e-15, 0.0312, "the module cannot be rebuilt", bounds),
        "artifacts": {"onnx": "model.onnx", "pt2": "model.pt2", "pt": None, "plan": "plan.json"},
    }
    return run(**fields | changes)
