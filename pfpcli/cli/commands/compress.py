"""`pfp compress`: prune channels, recover, verify, export."""

from __future__ import annotations

from typing import Any

from pfpcli.cli.app import command
from pfpcli.cli.options import (
    Out,
    budget,
    checkpoint,
    criterion,
    images,
    judging,
    machine,
    network,
    recovery,
    samples,
    scoring,
    takes,
    talking,
)
from pfpcli.cli.session import Talk
from pfpcli.settings import Settings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp compress model.pt --calib ./imgs --keep 0.4",
    "pfp compress weights.pth --arch torchvision:resnet18 --calib ./imgs",
    "pfp compress model.pt --calib ./imgs --keep-of macs --freeze 'head*'",
    "pfp compress model.pt --calib ./imgs --out small --json > run.json",
)
@takes(checkpoint, network, images, judging, budget, criterion, samples, scoring, recovery, machine, talk=talking)
def compress(given: dict[str, Any], *, out: Out = Settings.out, talk: Talk) -> None:
    """Prune the channels of MODEL, recover its accuracy, and write the smaller network to a run folder."""
    talk.finish(*talk.run("compress", Settings(**given, out=out)))
