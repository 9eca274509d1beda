"""Steps of recovery: a cut network gets back what it can, and what made it worse is taken back."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.quality import compare, likeness
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.images.calibration import Division
from pfpcli.jobs import cache
from pfpcli.progress import Console, Step
from pfpcli.records.record import Recovered
from pfpcli.recovery.batch_norms import Recalibrate
from pfpcli.recovery.distill import distill
from pfpcli.recovery.lockstep import Lockstep, numbers
from pfpcli.recovery.refit import Refit
from pfpcli.settings import Settings, most_epochs

#: Images that a layer is refitted to, at most, and bytes that their activations may take.
FITTED, HELD = 1024, 1 << 32

#: What visits the calls of the cut network, by method.
_VISITORS: dict[str, Callable[[Lockstep], Callable[[Node], None]]] = {
    "mean": lambda pair: Refit(pair, weights=False),
    "lsq": Refit,
    "bn": Recalibrate,
}


def recover(
    made: Cut, division: Division, settings: Settings, device: torch.device, console: Console
) -> list[Recovered]:
    """Recover a cut network by the methods that were asked for, one after the other; its tensors change in place.

    Args:
        made: the cut network and how it was made.
        division: which images it is fitted to, and which say whether it has helped.
        settings: the methods.
        device: where to compute.
        console: hears of each.
    """
    if not any(map(made.slicing.is_cut, made.slicing.labelled.graph.nodes)):
        return []
    return [_recover(method, made, division, settings, device, console) for method in settings.recover]


def _recover(
    method: str,
    made: Cut,
    division: Division,
    settings: Settings,
    device: torch.device,
    console: Console,
) -> Recovered:
    whole, smaller = made.slicing.labelled.graph, made.graph
    with console.step("recover") as step:
        held = {name: tensor.clone() for name, tensor in smaller.module.state_dict().items()}
        metric, before = _likeness(whole, smaller, division, device)
        if method == "distill":
            images = _distilled(made, division, settings, device, step, console)
        else:
            images = _in_lockstep(method, made, division, device, step)
        _, after = _likeness(whole, smaller, division, device)
        undone = before is not None and after is not None and after < before
        if undone:
            smaller.module.load_state_dict(held)
        if before is None or after is None:
            figures = "no images to check it on"
        else:
            figures = f"{metric} {100 * before:.1f} → {100 * after:.1f} %" + (", undone" if undone else "")
        step.summary = f"{method} on {images} images · {figures}"
    return Recovered(method, metric, before, after, undone, images, len(division.checked))


def _likeness(whole: Graph, smaller: Graph, division: Division, device: torch.device) -> tuple[str, float | None]:
    """How much the cut network is like the original on images that no recovery sees; None where there are none."""
    if not len(division.checked):
        return "agreement", None
    return likeness(compare(whole, smaller, division.checking(whole.fixed_batch), "", device))


def _in_lockstep(method: str, made: Cut, division: Division, device: torch.device, step: Step) -> int:
    """Visit the calls of the cut network side by side with the original; returns the number of images."""
    whole, smaller = made.slicing.labelled.graph, made.graph
    most = HELD // (4 * max(1, numbers(whole) + numbers(smaller)))
    most = max(whole.batch, min(FITTED, most))
    with whole.on(device), smaller.on(device):
        pair = Lockstep(made)
        batches = [images for images, _ in division.fitting(whole.fixed_batch, most)]
        mine = {i: images.to(device) for i, images in enumerate(batches) if processes.is_mine(images)}
        visitor, calls, done = _VISITORS[method](pair), sum(n.op == "call_function" for n in smaller.nodes), 0

        def visit(node: Node) -> None:
            nonlocal done
            visitor(node)
            done += 1
            step.progress(done, calls, "ops")

        pair.run(mine, visit)
    return sum(map(len, batches))


def _distilled(
    made: Cut,
    division: Division,
    settings: Settings,
    device: torch.device,
    step: Step,
    console: Console,
) -> int:
    """Train the cut network to do what the original does; returns the number of images."""
    minutes = None if settings.minutes is None else settings.minutes / settings.steps
    epochs = most_epochs(settings.epochs, settings.minutes)
    state = cache.training(made.graph, division, epochs, minutes, settings.seed)
    with console.resumable(state):
        found = distill(
            made,
            division,
            minutes=minutes,
            epochs=epochs,
            device=device,
            seed=settings.seed,
            state=state,
            progress=lambda done, best: step.progress(
                round(100 * done), 100, f"% of the training, agreement {100 * best:.1f} %"
            ),
        )
    return found.images


def adopt(smaller: Graph, made: Graph) -> None:
    """Take over the tensors of a network of the same shape that was cut and recovered in steps."""
    there = {str(node.target): made.tensor(node) for node in made.nodes if node.op == "get_attr" and is_tensor(node)}
    for node in smaller.nodes:
        if node.op == "get_attr" and is_tensor(node) and str(node.target) in there:
            with torch.no_grad():
                smaller.tensor(node).copy_(there[str(node.target)])
