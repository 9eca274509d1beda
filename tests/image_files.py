"""Calibration folders that tests draw: images and arrays of noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pfpcli.errors import CalibrationError
from pfpcli.images.decode import batches
from pfpcli.images.folder import ImageSet
from pfpcli.images.preprocess import PRESETS, Preprocess

UNIT = PRESETS["unit"]
RAW = PRESETS["raw255"]
NONE = PRESETS["none"]
IMAGENET = PRESETS["imagenet"]


def draw(mode: str = "RGB", width: int = 8, height: int = 8, seed: int = 0) -> Image.Image:
    """Noise, smooth enough for JPEG, in any mode."""
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (height, width), dtype=np.uint16))
    colour = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    return colour.convert("L").convert("LA") if mode == "LA" else colour.convert(mode)


def save(path: Path, image: Image.Image | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or draw()).save(path)
    return path


def folder(root: Path, count: int = 3, mode: str = "RGB", width: int = 8, height: int = 8) -> Path:
    """`root/imgs` with `count` images 0.png, 1.png and so on."""
    for seed in range(count):
        save(root / "imgs" / f"{seed}.png", draw(mode, width, height, seed))
    return root / "imgs"


def arrays(root: Path, **files: NDArray[np.generic] | dict[str, NDArray[np.generic]]) -> Path:
    """`root/imgs` with one .npy per array and one .npz per dict."""
    out = root / "imgs"
    out.mkdir()
    for name, content in files.items():
        if isinstance(content, dict):
            np.savez(out / f"{name}.npz", **content)
        else:
            np.save(out / f"{name}.npy", content)
    return out


def read(
    images: ImageSet, size: tuple[int, ...], preprocess: Preprocess, batch: int = 64, convert: bool = False
) -> NDArray[np.float32]:
    """All samples that can be read: float32[N, *size]."""
    return np.concatenate([x.numpy() for x, _ in batches(images, range(len(images)), size, preprocess, batch, convert)])


def refusal(call: Callable[[], object]) -> CalibrationError:
    with pytest.raises(CalibrationError) as caught:
        call()
    assert "\n" not in caught.value.message
    return caught.value


def names(images: ImageSet) -> list[str]:
    return [source.name for source in images.sources]


def noise(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
