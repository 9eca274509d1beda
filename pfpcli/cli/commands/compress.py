"""`pfp compress`: prune channels, recover, verify, export."""

from __future__ import annotations

from typing import Any

from pfpcli.cli.amount_options import amounts
from pfpcli.cli.app import command
from pfpcli.cli.flags import takes
from pfpcli.cli.options import Out, budget, replaying, resuming, session
from pfpcli.cli.output_options import gate
from pfpcli.cli.pruning_options import HOW, WHAT
from pfpcli.cli.result_options import damage, precisions
from pfpcli.cli.session import Session
from pfpcli.settings import CompressSettings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp compress model.pt --calib ./imgs --keep 0.4",
    "pfp compress weights.pth --arch torchvision:resnet18 --calib ./imgs",
    "pfp compress model.pt --calib ./imgs --keep-of macs --freeze 'head*'",
    "pfp compress model.pt --calib ./imgs --latency 4ms",
    "pfp compress model.pt --calib ./imgs --out small --json > run.json",
    "pfp compress model.pt --calib ./imgs --max-drop 1%",
    "pfp compress model.pt --calib ./imgs --keep 0.4 --int8",
    "pfp compress net.onnx --calib ./imgs --metric map.py:score --max-drop 1%",
    "pfp compress --resume small",
)
@takes(*WHAT, damage, gate, budget, amounts, replaying, *HOW, precisions, resuming, session=session)
def compress(given: dict[str, Any], *, out: Out = CompressSettings.out, session: Session) -> None:
    """Prune the channels of MODEL, recover its accuracy, and write the smaller network to a run folder."""
    session.finish(session.run("compress", CompressSettings(**given, out=out)))
