"""`pfp inspect`: show which channels of a model can be pruned, which cannot, and why."""

from __future__ import annotations

from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, switch, takes
from pfpcli.cli.options import checkpoint, network, session
from pfpcli.cli.output_options import outputs
from pfpcli.cli.session import Session, width
from pfpcli.errors import CheckFailed, UnsupportedError
from pfpcli.report import inspection
from pfpcli.settings import NetworkSettings


@command(
    "MODEL [OPTIONS]",
    "pfp inspect model.pt",
    "pfp inspect weights.pth --arch torchvision:resnet18 --all",
    "pfp inspect model.pt --input-size 3,224,224 --strict",
)
@takes(checkpoint, network, outputs, session=session)
def inspect(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all groups with their tensors, and all ops.", "--all")] = False,
    session: Session,
) -> None:
    """Show which channels of MODEL can be pruned, which cannot, and why. Writes nothing."""
    settings = NetworkSettings(**given)
    found = session.run("inspect", settings)
    if session.as_json:
        session.json(found)
    else:
        page = session.stdout()
        page.write(inspection.render(found, width=width(), everything=everything, unicode=page.unicode).rstrip("\n"))
    if all(group.frozen_reason for group in found.groups):
        raise UnsupportedError(f"{found.model['name']}: nothing in it can be pruned", "the reasons stand above")
    if settings.strict and found.unknown:
        raise CheckFailed(f"--strict: no rule for {', '.join(found.unknown)}", "what touches them was frozen")
