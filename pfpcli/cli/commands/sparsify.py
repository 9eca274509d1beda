"""`pfp sparsify`: set single weights to zero."""

from __future__ import annotations

from typing import Any

from pfpcli.cli.app import command
from pfpcli.cli.options import (
    Out,
    checkpoint,
    images,
    judging,
    machine,
    network,
    samples,
    session,
    sparsity,
    takes,
)
from pfpcli.cli.session import Session
from pfpcli.settings import SparsifySettings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp sparsify model.pt --calib ./imgs --keep 0.3",
    "pfp sparsify model.pt --calib ./imgs --keep 0.3 --criterion sipp-hybrid",
    "pfp sparsify model.pt --calib ./imgs --keep 10% --cut-dead --freeze 'head*'",
)
@takes(checkpoint, network, images, samples, judging, sparsity, machine, session=session)
def sparsify(given: dict[str, Any], *, out: Out = SparsifySettings.out, session: Session) -> None:
    """Set single weights of MODEL to zero, bound the error of every layer, and write a run folder."""
    session.finish(session.run("sparsify", SparsifySettings(**given, out=out)))
