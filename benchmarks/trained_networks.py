"""The trained networks of `make figures`: ResNet-20 and ResNet-56 on CIFAR-10, EfficientNet-Lite0 on photos.

DIR has `models/resnet20.pt2`, `models/resnet56.pt2`, `cifar10/train` and `cifar10/test`; and `imagenet/calib`,
`imagenet/eval` and `imagenet/classes.txt` for EfficientNet-Lite0, whose weights `make figures` installs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cifar import BLOCKS
from real import NETWORKS

#: DIR without --data.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def arguments(description: str) -> argparse.Namespace:
    """Return the arguments of a benchmark of these networks: data, only, fresh."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, default=SHARED, help="the folder of the images")
    parser.add_argument("--only", default="*", help="measure only points whose name matches this pattern")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    return parser.parse_args()


def inputs(name: str, data: Path, scratch: Path) -> dict[str, Any]:
    """Return the arguments of `pfpcli.compress` that name a network, its images, and what its budgets count.

    Args:
        name: of the network.
        data: DIR.
        scratch: a folder for an exported network.

    Raises:
        PfpError: the package of the weights is not installed.
    """
    if name in BLOCKS:
        images = data / "cifar10"
        model = data / "models" / f"{name}.pt2"
        return {"model": model, "calib": images / "train", "eval": images / "test", "keep_of": "params"}
    network = next(each for each in NETWORKS if each.name == name)
    network.export(scratch / "model.onnx")
    photos = data / "imagenet"
    return {
        "model": scratch / "model.onnx",
        "calib": photos / "calib",
        **network.judged_on(photos),
        "keep_of": "macs",
    }
