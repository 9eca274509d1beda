"""Draws the sample images and trains the sample network: everything in this folder comes from this script.

    python samples/make_samples.py                     redraw images/, retrain model.pt, print the accuracy
    python samples/make_samples.py --accuracy          print the accuracy of model.pt on images/, write nothing
    python samples/make_samples.py --accuracy FILE.pt  the same for another network, say a pruned one

In: a fixed seed. Out: `images/<class>/NN.jpg` (8 classes x 46) and `model.pt`, a pickled `nn.Sequential`.
The class of an image is the shape it shows. Colour, fill, place, size, angle, clutter, and noise say nothing about it.
The network learns from images drawn for the purpose and thrown away; it never sees the ones in `images/`.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
SEED = 20200426
SIZE = 32  # pixels, both ways
PER_CLASS = 46
TRAIN_IMAGES = 16_000
EPOCHS = 8
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
JPEG_QUALITY = 90
MEAN = (0.485, 0.456, 0.406)  # ImageNet, on pixel / 255
STD = (0.229, 0.224, 0.225)

Array = np.ndarray
Rng = np.random.Generator

# --- shapes -----------------------------------------------------------------------------------------------------------
# A shape maps float[SIZE, SIZE] coordinates (pixels, the shape's own frame) and a radius (pixels) to a signed distance:
# below zero inside, above zero outside, about one unit per pixel near the edge, so one clip gives a smooth edge.


def disc(x: Array, y: Array, radius: float) -> Array:
    """A filled circle."""
    return np.hypot(x, y) - radius


def ring(x: Array, y: Array, radius: float) -> Array:
    """A circle with a hole: outer radius `radius`, wall 0.44 of it."""
    return np.abs(np.hypot(x, y) - 0.78 * radius) - 0.22 * radius


def crescent(x: Array, y: Array, radius: float) -> Array:
    """A disc minus a smaller disc off its centre."""
    return np.maximum(disc(x, y, radius), -disc(x - 0.5 * radius, y, 0.8 * radius))


def cross(x: Array, y: Array, radius: float) -> Array:
    """Two bars at a right angle."""
    along, across = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(along - radius, across - 0.34 * radius)


def polygon(x: Array, y: Array, inradius: float, sides: int) -> Array:
    """A regular polygon: the farthest of its edges' half planes."""
    angles = 2 * np.pi * np.arange(sides) / sides
    return np.max([x * np.cos(a) + y * np.sin(a) for a in angles], axis=0) - inradius


def triangle(x: Array, y: Array, radius: float) -> Array:
    """Three sides; drawn larger, so that its area is near the others'."""
    return polygon(x, y, 0.62 * radius, 3)


def square(x: Array, y: Array, radius: float) -> Array:
    """Four sides."""
    return polygon(x, y, 0.82 * radius, 4)


def hexagon(x: Array, y: Array, radius: float) -> Array:
    """Six sides; the one most easily taken for a disc."""
    return polygon(x, y, 0.9 * radius, 6)


def star(x: Array, y: Array, radius: float) -> Array:
    """Five points: folded into one tenth of the plane, where the outline is one line from tip to notch."""
    half = np.pi / 5
    angle = np.abs((np.arctan2(y, x) + half) % (2 * half) - half)
    tip = np.array([1.12 * radius, 0.0])
    notch = 0.52 * radius * np.array([np.cos(half), np.sin(half)])
    normal = np.array([notch[1], tip[0] - notch[0]]) / np.hypot(*(tip - notch))
    distance = np.hypot(x, y)
    return (distance * np.cos(angle) - tip[0]) * normal[0] + distance * np.sin(angle) * normal[1]


SHAPES: dict[str, Callable[[Array, Array, float], Array]] = {
    "crescent": crescent,
    "cross": cross,
    "disc": disc,
    "hexagon": hexagon,
    "ring": ring,
    "square": square,
    "star": star,
    "triangle": triangle,
}
CLASSES = tuple(SHAPES)  # alphabetical, as the folders sort: position = the network's output index

# --- drawing ----------------------------------------------------------------------------------------------------------

GRID_Y, GRID_X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


def draw(rng: Rng, shape: str) -> Image.Image:
    """One image of `shape`: background, clutter behind, the shape, clutter in front, noise."""
    background, ink = two_colours(rng)
    canvas = gradient(rng, background)
    for _ in range(rng.integers(1, 5)):
        scratch(rng, canvas)
    radius = rng.uniform(6.0, 11.5)
    centre = rng.uniform(radius, SIZE - 1 - radius, size=2)
    x, y = turned(rng, GRID_X - centre[0], GRID_Y - centre[1])
    blend(canvas, cover(SHAPES[shape](x, y, radius)), fill(rng, ink, background))
    for _ in range(rng.integers(0, 2)):
        scratch(rng, canvas)
    canvas += rng.normal(0.0, rng.uniform(0.0, 0.07), size=canvas.shape)
    return Image.fromarray(np.rint(canvas.clip(0, 1) * 255).astype(np.uint8))


def two_colours(rng: Rng) -> tuple[Array, Array]:
    """Two random colours, float[3] each in 0..1, far enough apart to be told apart."""
    while True:
        first, second = rng.uniform(0.05, 0.95, size=(2, 3))
        if np.linalg.norm(first - second) > 0.4:
            return first, second


def gradient(rng: Rng, colour: Array) -> Array:
    """A slow ramp around `colour`: float[SIZE, SIZE, 3]."""
    ramp, _ = turned(rng, GRID_X / SIZE - 0.5, GRID_Y / SIZE - 0.5)
    return colour + ramp[..., None] * rng.uniform(-0.25, 0.25, size=3)


def fill(rng: Rng, ink: Array, background: Array) -> Array:
    """The shape's paint, plain or striped: float[SIZE, SIZE, 3]."""
    paint = gradient(rng, ink)
    if rng.random() < 0.35:
        along, _ = turned(rng, GRID_X, GRID_Y)
        stripes = 0.5 + 0.5 * np.sin(2 * np.pi * along / rng.uniform(3.0, 8.0))
        paint += stripes[..., None] * rng.uniform(0.2, 0.6) * (background - ink)
    return paint


def scratch(rng: Rng, canvas: Array) -> None:
    """Draws one stroke or dot of clutter onto `canvas`, in place."""
    place = rng.uniform(0, SIZE, size=2)
    x, y = turned(rng, GRID_X - place[0], GRID_Y - place[1])
    length, width = rng.uniform(0.0, 8.0), rng.uniform(0.5, 1.6)
    blend(canvas, cover(np.hypot(np.maximum(np.abs(x) - length, 0), y) - width), rng.uniform(0, 1, size=3))


def turned(rng: Rng, x: Array, y: Array) -> tuple[Array, Array]:
    """The coordinates turned by a random angle."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x


def cover(distance: Array) -> Array:
    """The share of each pixel that lies inside: float[SIZE, SIZE] in 0..1."""
    return (0.5 - distance).clip(0, 1)


def blend(canvas: Array, share: Array, paint: Array) -> None:
    """Mixes `paint` into `canvas` where `share` says so, in place."""
    canvas += share[..., None] * (paint - canvas)


def jpeg(image: Image.Image) -> bytes:
    """The image as a JPEG file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


# --- data -------------------------------------------------------------------------------------------------------------


def pixels(files: list[bytes]) -> Tensor:
    """Decoded and normalised: float32[N, 3, SIZE, SIZE]."""
    stack = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    images = torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def training_set() -> tuple[Tensor, Tensor]:
    """Images drawn for training alone, JPEG-coded like the committed ones: float32[N, 3, SIZE, SIZE], int64[N]."""
    rng = np.random.default_rng([SEED, 1])
    labels = torch.arange(TRAIN_IMAGES) % len(CLASSES)
    return pixels([jpeg(draw(rng, CLASSES[label])) for label in labels.tolist()]), labels


def committed_set() -> tuple[Tensor, Tensor]:
    """What lies in images/: float32[N, 3, SIZE, SIZE], int64[N]."""
    paths = sorted((HERE / "images").glob("*/*.jpg"))
    return pixels([path.read_bytes() for path in paths]), torch.tensor([CLASSES.index(p.parent.name) for p in paths])


def write_images(folder: Path) -> None:
    """Draws the committed images from a random stream of their own."""
    rng = np.random.default_rng([SEED, 0])
    for shape in CLASSES:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(PER_CLASS):
            (folder / shape / f"{number:02d}.jpg").write_bytes(jpeg(draw(rng, shape)))


# --- network ----------------------------------------------------------------------------------------------------------


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU; same height and width."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def network() -> nn.Sequential:
    """A small CNN of plain `torch.nn` classes: float32[N, 3, 32, 32] -> float32[N, 8]."""
    return nn.Sequential(
        block(3, 32),
        nn.MaxPool2d(2),
        block(32, 64),
        block(64, 64),
        nn.MaxPool2d(2),
        block(64, 64, groups=64),  # depthwise ...
        block(64, 96, kernel=1),  # ... separable
        block(96, 96),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, len(CLASSES)),
    )


def turned_over(images: Tensor) -> Tensor:
    """The batch flipped and turned by a random multiple of 90 degrees; no shape becomes another by it."""
    flip, turns = (int(torch.randint(top, ())) for top in (2, 4))
    return torch.rot90(images.flip(3) if flip else images, turns, (2, 3))


def train() -> nn.Sequential:
    """Trains from the fixed seed on one thread, which makes two runs on one machine give the same weights."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    images, labels = training_set()
    model = network().train()
    steps = EPOCHS * (TRAIN_IMAGES // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.2)
    for epoch in range(EPOCHS):
        losses = []
        for batch in torch.randperm(TRAIN_IMAGES)[: steps // EPOCHS * BATCH].split(BATCH):
            loss = nn.functional.cross_entropy(model(turned_over(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.3f}", flush=True)
    return model.eval()


def load(path: Path) -> nn.Module:
    """Reads a network made of `torch.nn` classes without running anybody's code."""
    classes = [value for value in vars(nn).values() if isinstance(value, type) and issubclass(value, nn.Module)]
    with torch.serialization.safe_globals(classes):
        model: nn.Module = torch.load(path, map_location="cpu", weights_only=True)
    return model.eval()


@torch.no_grad()
def print_accuracy(path: Path) -> None:
    """Prints top-1 on the committed images, over all and per class."""
    images, labels = committed_set()
    right = load(path)(images).argmax(1) == labels
    print(f"{path.name}: {right.float().mean():.1%} top-1, {int(right.sum())} of {len(right)} images")
    for index, shape in enumerate(CLASSES):
        print(f"  {shape:<10}{int(right[labels == index].sum()):3d} of {int((labels == index).sum())}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Draw the sample images and train the sample network.")
    parser.add_argument(
        "--accuracy", nargs="?", type=Path, const=HERE / "model.pt", metavar="FILE", help="only measure (model.pt)"
    )
    options = parser.parse_args()
    if options.accuracy is None:
        start = time.perf_counter()
        write_images(HERE / "images")
        model = train()
        buffer = io.BytesIO()  # saved to a buffer, because a file's own name would go into the archive
        torch.save(model, buffer)
        (HERE / "model.pt").write_bytes(buffer.getvalue())
        parameters = sum(p.numel() for p in model.parameters())
        print(f"model.pt: {parameters} parameters, {len(buffer.getvalue())} bytes, {time.perf_counter() - start:.0f} s")
    print_accuracy(options.accuracy or HERE / "model.pt")


if __name__ == "__main__":
    main()
