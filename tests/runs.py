"""Records made by hand, with numbers that do not change, for the tests of records, reports and the command line."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from pfpcli.records.parts import (
    Certificate,
    Cost,
    Filling,
    GroupRow,
    LayerError,
    LayerRow,
    Quality,
    Recovered,
    SparseLayer,
    Training,
    Verification,
)
from pfpcli.records.runs import Record, Run, SparseRun, TunedRun
from pfpcli.settings import CompressSettings

BLOCKS = ((16, 10), (16, 9), (32, 20), (32, 19), (64, 37), (64, 30))


def layers() -> list[LayerRow]:
    """Return a stem, six blocks of two convolutions, and a classifier; the first of each block lost channels."""
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
    """Return a run of `pfp compress` that passed all checks; fields can be changed."""
    rows = layers()
    before, after = (sum(layer.params[i] for layer in rows) for i in (0, 1))
    made = Run(
        pfp_version="0.1.0",
        status="ok",
        model={"name": "model.pt", "kind": "module", "sha256": "ab" * 32, "input_size": [3, 32, 32]},
        settings=CompressSettings(model="model.pt", calib="imgs", criterion="pfp", keep=0.546).recorded(),  # type: ignore[arg-type]
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
        memory={"traced": 310_000_000, "peak": 940_000_000, "steps": {"trace": 310_000_000, "score": 940_000_000}},
        warnings=[],
        machine={"python": "3.11.7", "torch": "2.13.0", "platform": "Linux x86_64", "device": "cpu"},
        created="2026-01-02T03:04:05.678+00:00",
    )
    return replace(made, **changes)


def unlabelled(**changes: Any) -> Run:
    """Return a run without labels whose budget was not met exactly."""
    own: dict[str, Any] = {
        "quality": Quality("agreement", 1.0, 0.918, 0.918, 256, "held-out images", 0.21),
        "requested": {"keep": 0.5, "of": "params"},
        "achieved": {"keep": 0.5459, "exact": False},
    }
    return run(**own | changes)


def failed(**changes: Any) -> Run:
    """Return a run whose ONNX file does not compute what torch computes."""
    bounds = {"cut_vs_masked": 1e-9, "onnx_vs_torch": 1e-4}
    own: dict[str, Any] = {
        "status": "failed",
        "verification": Verification(3.1e-15, 0.0312, "the module cannot be rebuilt", bounds),
        "artifacts": {"onnx": "model.onnx", "pt2": "model.pt2", "pt": None, "plan": "plan.json"},
    }
    return run(**own | changes)


def warned(number: int = 6) -> Run:
    """Return a run with long warnings, a recovery, and no model.pt."""
    recovery = [Recovered("lsq", "agreement", 0.488, 0.912, False, 205, 41)]
    bounds = {"cut_vs_masked": 1e-9, "onnx_vs_torch": 1e-4}
    return run(
        recovery=recovery,
        verification=Verification(3.1e-15, 4.2e-6, "the input is no module: pt2", bounds),
        warnings=[
            f"{index} images could not be read and were skipped, " + "which is a pity " * 6 for index in range(number)
        ],
    )


def _common() -> dict[str, Any]:
    """Return the fields that all records have, those of `run`."""
    made = run()
    return {each.name: getattr(made, each.name) for each in fields(Record)}


def sparse_run(**changes: Any) -> SparseRun:
    """Return a run of `pfp sparsify`; fields can be changed."""
    common = _common() | {
        "settings": {"keep": 0.3, "cut_dead": False},
        "scoring": {"criterion": "sipp", "form": "largest", "delta": 1e-16, "samples": 182},
    }
    made = SparseRun(
        **common,
        requested={"keep": 0.3},
        achieved={"keep": 0.3002},
        before=Filling(147_448, 147_448, 20_800_000, 592_200, 547_200),
        after=Filling(147_448, 44_264, 20_800_000, 592_200, 218_000),
        dead={"channels": 9, "cut": 0},
        layers=[
            SparseLayer("7.0", 82_944, (82_944, 13_900), 24.7, 0.62),
            SparseLayer("3.0", 36_864, (36_864, 9_910), 17.8, 0.56),
            SparseLayer("2.0", 18_432, (18_432, 11_700), 3.13, 0.32),
            SparseLayer("6.0", 6_144, (6_144, 5_120), 0.837, 0.109),
            SparseLayer("10", 768, (768, 742), None, 0.00822),
            SparseLayer("0.0", 864, (864, 864), 0.0, 0.0),
        ],
    )
    return replace(made, **changes)


def tuned_run(**changes: Any) -> TunedRun:
    """Return a run of `pfp finetune`; fields can be changed."""
    compressed = run()
    common = _common() | {
        "settings": {"lr": 0.02, "epochs": 30},
        "quality": Quality("accuracy", 0.565, 0.934, 0.571, 122, "held-out images", 0.8),
    }
    made = TunedRun(
        **common,
        run="model-keep0.40",
        before=compressed.before,
        after=compressed.after,
        training=Training(30.0, 21.3, 205, 41, (0.61, 0.951), "model.pt", 0.5),
    )
    return replace(made, **changes)
