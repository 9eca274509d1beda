"""One network, cut by pfp: how accurate it is at a fraction of its MACs.

    python benchmarks/ours.py --criterion CRITERION --model MODEL --macs FRACTION [--data DIR] [--minutes M]

Prints one line of JSON, that of `benchmarks/peers.py`. `--list` prints the criteria: those of `pfp compress`, each with
its defaults (`--allocate best --recover lsq`), and the variants of `benchmarks/points.py`. `seconds` and
`peak_mb` are of following the network, scoring, planning, cutting and recovery, without evaluation, checks, export and
the training of `--minutes`, which is the same for every tool; where pfp trains by itself, that is in them. Scores and
curves that are in pfp's cache are used, except at half of the MACs, where the seconds are shown.

The images are those that the other tools look at, in one folder, so that no labels are there; `taylor` has them in
folders of classes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import cifar
import torch
from peers import Point
from points import BUDGETS, OWN_TRAINING, VARIANTS, unable
from torch import Tensor, nn

from pfpcli.errors import PfpError
from pfpcli.jobs.compress import compress
from pfpcli.progress import Console, Step
from pfpcli.records.folders import FILES
from pfpcli.records.runs import Run
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import CompressSettings

#: The steps of a run that are the compression; the others read files, check, judge and write.
COMPRESSION = ("trace", "score", "curves", "plan", "cut", "recover")
#: Criteria that are shown labels.
LABELLED = ("taylor",)


class Trainable(nn.Module):
    """A network that pfp wrote, with norms that can be trained; the program that it was written as is in eval mode.

    A class of the user's whose shortcuts say how many channels they add cannot hold a network whose trunk was cut, so
    this is the program itself.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.network = torch.export.load(file).module()

    def train(self, mode: bool = True) -> Trainable:
        """Norms take the statistics of the batch and keep running ones, as those of any module in this mode."""
        for node in self.network.graph.nodes:
            if node.target is torch.ops.aten.batch_norm.default:
                node.update_arg(5, mode)  # (x, weight, bias, mean, var, training, ...)
        self.network.recompile()
        self.training = mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        """float[N, 3, H, W] -> float[N, classes]."""
        return self.network(x)


class Watch(Console):
    """Notes the memory that was in use at most when the compression was through."""

    def __init__(self) -> None:
        super().__init__()
        self.peak_mb = 0.0

    def end(self, step: Step) -> None:
        """A step is through."""
        if step.name in COMPRESSION:
            self.peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def criteria() -> list[str]:
    """All criteria and variants."""
    return [*CRITERIA, *VARIANTS, *OWN_TRAINING]


def link(data: Path, folder: Path, labelled: bool) -> Path:
    """A folder of links to the images that a tool may look at, flat or by class."""
    for i, (path, _) in enumerate(cifar.calibration_files(data)):
        place = folder / path.parent.name if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:04d}{path.suffix}").symlink_to(path.resolve())
    return folder


def told(data: Path, criterion: str, model: str, asked: float, minutes: float, scratch: Path) -> CompressSettings:
    """What `pfp compress` is told."""
    variant = (VARIANTS | OWN_TRAINING).get(criterion, {"criterion": criterion})
    if criterion in OWN_TRAINING:
        variant = {**variant, "minutes": minutes}
    return CompressSettings(
        model=data / "models" / f"{model}_state.pt",
        arch="cifar:ResNet",
        arch_kwargs={"blocks": cifar.BLOCKS[model]},
        input_size=(3, 32, 32),
        calib=link(data, scratch / "images", criterion in LABELLED),
        eval=data / "cifar10" / "test",
        keep=asked,
        keep_of="macs",
        # times are shown at the first budget; the others may find scores and curves that are there
        cache=asked != BUDGETS[0],
        device="cpu",
        threads=torch.get_num_threads(),
        out=scratch / "run",
        **variant,
    )


def remarks(run: Run) -> list[str]:
    """What was done, for the remark of a point."""
    said = [f"allocate {run.settings['allocate']}", f"recover {','.join(run.settings['recover']) or 'none'}"]
    if run.settings["steps"] > 1:
        said.append(f"{run.settings['steps']} steps")
    labels = " and labels" if run.settings["criterion"] in LABELLED else " without labels"
    images = run.calibration
    fitted = f", {images['fitted']} fitted" if run.settings["recover"] else ""
    return [*said, f"{images['images']} training images{labels}: {images['scored']} scored{fitted}"]


def trained(data: Path, model: str, file: Path, minutes: float) -> tuple[float, str]:
    """Train the network of a run as that of any other tool: (accuracy, what was done)."""
    module = Trainable(file)
    images, _ = cifar.calibration_set(data)
    epochs = cifar.distil(module, cifar.network(data, model), images, minutes)
    accuracy = cifar.accuracy(cifar.torch_logits(module), *cifar.test_set(data))
    return accuracy, f"distilled for {epochs} epochs of {len(images)} training images without labels"


def measure(data: Path, criterion: str, model: str, asked: float, minutes: float) -> Point:
    """Cut, train if asked to, and judge."""
    watch = Watch()
    with tempfile.TemporaryDirectory() as scratch:
        run, *_ = compress(told(data, criterion, model, asked, minutes, Path(scratch)), watch)
        after, said = run.quality.after, remarks(run)
        if minutes and criterion not in OWN_TRAINING:
            after, how = trained(data, model, Path(scratch) / "run" / FILES["pt2"], minutes)
            said.append(how)
    fractions = (run.after.macs / run.before.macs, run.after.params / run.before.params, after, run.quality.before)
    seconds = sum(run.timings.get(step, 0.0) for step in COMPRESSION)
    return Point(
        "pfp", criterion, model, asked, *(round(value, 4) for value in fractions), minutes,
        round(seconds, 2), round(watch.peak_mb), "; ".join(said),
    )  # fmt: skip


def settings() -> argparse.Namespace:
    """What the command line says; ends the process where it says nothing that can be done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--criterion")
    parser.add_argument("--model", choices=list(cifar.BLOCKS), default="resnet20")
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs to keep")
    parser.add_argument("--minutes", type=float, default=0.0, help="time of training after the cut")
    parser.add_argument("--data", type=Path, default=Path(cifar.DATA))
    parser.add_argument("--list", action="store_true", help="print the criteria")
    chosen = parser.parse_args()
    if chosen.list:
        print("\n".join(criteria()))
        sys.exit()
    if chosen.criterion not in criteria():
        parser.error("--criterion: one of those of --list")
    if (why := unable("pfp", chosen.criterion)) is not None:
        parser.error(f"--criterion {chosen.criterion}: {why}")
    if chosen.criterion in OWN_TRAINING and not chosen.minutes:
        parser.error(f"--criterion {chosen.criterion}: say with --minutes for how long")
    if (path := cifar.missing(chosen.data)) is not None:
        parser.exit(2, f"{path} is not there: --data names the folder with cifar10 and models\n")
    return chosen


def main() -> None:
    """Measure one point."""
    chosen = settings()
    try:
        point = measure(chosen.data, chosen.criterion, chosen.model, chosen.macs, chosen.minutes)
    except PfpError as error:
        sys.exit(f"{error.message}\n{error.hint}".strip())
    print(json.dumps(asdict(point)))


if __name__ == "__main__":
    main()
