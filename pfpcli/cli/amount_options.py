"""Options that say how much of something the network may have at most, instead of --keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.flags import flag
from pfpcli.cli.options import BUDGET
from pfpcli.settings import CompressSettings


def amounts(
    params: Annotated[
        str | None, flag(BUDGET, "Parameters at most: 1M, or a fraction of the original's.", metavar="N")
    ] = None,
    macs: Annotated[
        str | None, flag(BUDGET, "Multiply-adds at most: 200M, or a fraction of the original's.", metavar="N")
    ] = None,
    size: Annotated[
        str | None,
        flag(BUDGET, "Size of model.onnx at most: 2MB, or a fraction of the original's.", metavar="SIZE"),
    ] = None,
    latency: Annotated[
        str | None,
        flag(
            BUDGET,
            "Latency at most: 4ms, or a fraction of the original's. The layers are timed in onnxruntime on this "
            "machine; the written file is measured, and the plan is adjusted until it meets this within 3 %. With "
            "--int8 it is that of the int8 file.",
            metavar="T",
        ),
    ] = None,
    latency_table: Annotated[
        Path | None,
        flag(
            BUDGET,
            "Times of the layers on another machine, for --latency: what `pfp latency MODEL --pack` writes there.",
            metavar="FILE",
        ),
    ] = CompressSettings.latency_table,
) -> dict[str, Any]:
    """How much the network may have at most."""
    return {"params": params, "macs": macs, "size": size, "latency": latency, "latency_table": latency_table}
