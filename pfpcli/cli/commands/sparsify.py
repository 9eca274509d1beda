"""`pfp sparsify`: set single weights to zero."""

from __future__ import annotations

from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import setting, switch, takes
from pfpcli.cli.options import (
    CUT,
    SCORING,
    Delta,
    Keep,
    Out,
    checkpoint,
    images,
    judging,
    machine,
    network,
    resuming,
    samples,
    session,
)
from pfpcli.cli.output_options import outputs
from pfpcli.cli.session import Session
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.settings import SparsifySettings
from pfpcli.settings.text import parse_keep

_WEIGHT_CRITERIA = "; ".join(f"{name} ({found.summary})" for name, found in WEIGHT_CRITERIA.items())


def _sparsity(
    keep: Keep = None,
    criterion: Annotated[
        str, setting(SCORING, "criterion", f"How to choose weights: {_WEIGHT_CRITERIA}.", of=SparsifySettings)
    ] = SparsifySettings.criterion,
    delta: Delta = SparsifySettings.delta,
    cut_dead: Annotated[
        bool, switch(CUT, "Also remove the channels that no nonzero weight reads.", "--cut-dead")
    ] = SparsifySettings.cut_dead,
) -> dict[str, Any]:
    """Which single weights become zero, and how many."""
    return {
        "keep": SparsifySettings.keep if keep is None else parse_keep(keep),
        "criterion": criterion,
        "delta": delta,
        "cut_dead": cut_dead,
    }


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp sparsify model.pt --calib ./imgs --keep 0.3",
    "pfp sparsify model.pt --calib ./imgs --keep 0.3 --criterion sipp-hybrid",
    "pfp sparsify model.pt --calib ./imgs --keep 10% --cut-dead --freeze 'head*'",
    "pfp sparsify --resume pfp-runs/model-sparse0.30",
)
@takes(checkpoint, network, outputs, images, samples, judging, _sparsity, machine, resuming, session=session)
def sparsify(given: dict[str, Any], *, out: Out = SparsifySettings.out, session: Session) -> None:
    """Set single weights of MODEL to zero, bound the error of every layer, and write a run folder."""
    session.finish(session.run("sparsify", SparsifySettings(**given, out=out)))
