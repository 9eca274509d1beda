"""CIFAR-10's residual networks and images, and what every tool is judged by: accuracy, MACs, parameters, training.

The folder has `models/NAME_state.pt` and `models/NAME.onnx` (NAME is resnet20 or resnet56), and `cifar10/train` and
`cifar10/test` with one folder of images per class. It is no part of this repository; the path comes from outside.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

#: Where the folder is, as seen from the root of a checkout.
DATA = "../shared/data"
#: Blocks per stage.
BLOCKS = {"resnet20": 3, "resnet56": 9}
WIDTHS = (16, 32, 64)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Training images that a tool may look at.
CALIBRATION = 1024
#: Images that go through a network at a time when it is judged.
BATCH = 250


class Block(nn.Module):
    """Two convolutions and a shortcut without weights: every second pixel, and channels of zeros (option A)."""

    def __init__(self, channels: int, inner: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride, self.padding = stride, (out - channels) // 2

    def forward(self, x: Tensor) -> Tensor:
        """float[N, channels, H, W] -> float[N, out, H / stride, W / stride]."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


class ResNet(nn.Module):
    """He et al. 2016, section 4.2; `inner` are the widths inside of the blocks, where they are not the stage's."""

    def __init__(self, blocks: int, inner: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        channels = WIDTHS[0]
        for stage, width in enumerate(WIDTHS, 1):
            layer = nn.Sequential()
            for i in range(blocks):
                within = width if inner is None else inner[f"layer{stage}.{i}"]
                layer.append(Block(channels, within, width, 2 if stage > 1 and i == 0 else 1))
                channels = width
            setattr(self, f"layer{stage}", layer)
        self.linear = nn.Linear(channels, 10)

    def blocks(self) -> list[Block]:
        """All blocks in order."""
        return [part for part in self.modules() if isinstance(part, Block)]

    def forward(self, x: Tensor) -> Tensor:
        """float[N, 3, 32, 32] -> float[N, 10]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def network(data: Path, name: str) -> ResNet:
    """A trained network in eval mode."""
    module = ResNet(BLOCKS[name])
    module.load_state_dict(torch.load(data / "models" / f"{name}_state.pt", weights_only=True))
    return module.eval()


def missing(data: Path) -> str | None:
    """What of the folder is not there."""
    wanted = [data / "cifar10" / part for part in ("train", "test")] + [data / "models"]
    return next((str(path) for path in wanted if not path.is_dir()), None)


def read(files: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    """Image files and their classes -> float[N, 3, 32, 32] normalised as in training, int[N]."""
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path, _ in files])
    images = torch.from_numpy((pixels / 255 - np.float32(MEAN)) / np.float32(STD)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label in files])


def files_of(folder: Path) -> list[list[Path]]:
    """The files of each class, both sorted by name."""
    return [sorted(each.iterdir()) for each in sorted(folder.iterdir()) if each.is_dir()]


def test_set(data: Path) -> tuple[Tensor, Tensor]:
    """The 2,000 images that judge: float[2000, 3, 32, 32], int[2000]."""
    classes = files_of(data / "cifar10" / "test")
    return read([(path, label) for label, paths in enumerate(classes) for path in paths])


def calibration_files(data: Path) -> list[tuple[Path, int]]:
    """The training images a tool may look at, and their classes: 1024, classes in turn, drawn with a fixed seed."""
    classes = files_of(data / "cifar10" / "train")
    draw = np.random.default_rng(0)
    shuffled = [[paths[i] for i in draw.permutation(len(paths))] for paths in classes]
    turns = [(path, label) for turn in zip(*shuffled, strict=True) for label, path in enumerate(turn)]
    return turns[:CALIBRATION]


def calibration_set(data: Path) -> tuple[Tensor, Tensor]:
    """The same, read: float[1024, 3, 32, 32], int[1024]."""
    return read(calibration_files(data))


def torch_logits(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """A network's outputs, without gradients."""

    def logits(images: Tensor) -> Tensor:
        with torch.no_grad():
            return module(images)

    return logits


def onnx_logits(model: onnx.ModelProto) -> Callable[[Tensor], Tensor]:
    """The same in onnxruntime, on as many threads as torch uses."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0])


def accuracy(logits: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose largest output is that of their class."""
    guesses = torch.cat([logits(batch).argmax(1) for batch in images.split(BATCH)])
    return (guesses == labels).double().mean().item()


def torch_cost(module: nn.Module) -> tuple[int, int]:
    """MACs of one image, and the parameters of convolutions and linear layers with the norms folded into them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 32, 32))
    layers = [part.weight for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    return counter.get_total_flops() // 2, sum(weight.numel() + len(weight) for weight in layers)


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """An ONNX file with the shapes that its weights come to, whatever shapes were written into it before."""
    bare = copy.deepcopy(model)
    bare.graph.ClearField("value_info")
    return onnx.shape_inference.infer_shapes(bare, data_prop=True)


def onnx_cost(model: onnx.ModelProto) -> tuple[int, int]:
    """The same of an ONNX file, whose norms are folded as it is."""
    graph = inferred(model).graph
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in graph.value_info}
    weights = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    macs = params = 0
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            pixels = math.prod(sizes[node.output[0]][2:]) if node.op_type == "Conv" else 1
            macs += pixels * weights[node.input[1]]
            params += sum(weights[name] for name in node.input[1:])
    return macs, params


def distil(student: nn.Module, teacher: nn.Module, images: Tensor, minutes: float) -> int:
    """Train a network in place on the outputs of another, without labels, for a time; returns the epochs.

    SGD with momentum, a cosine over the time, KL divergence at temperature 1, flips and shifts by up to 4 pixels. The
    teacher sees the image as the student does.
    """
    torch.manual_seed(0)
    rate, batch = 0.02, 128
    optimizer = torch.optim.SGD(student.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4)
    start, done, epochs = time.perf_counter(), 0.0, 0
    student.train()
    while done < 1:
        for chosen in torch.randperm(len(images)).split(batch):
            shown = shifted(images[chosen])
            with torch.no_grad():
                wanted = teacher(shown).log_softmax(1)
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * done)) / 2
            loss = F.kl_div(student(shown).log_softmax(1), wanted, reduction="batchmean", log_target=True)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = min((time.perf_counter() - start) / (60 * minutes), 1.0)
            if done == 1:
                break
        epochs += 1
    student.eval()
    return epochs


def shifted(images: Tensor) -> Tensor:
    """Each image flipped or not, and moved by up to 4 pixels: float[N, 3, H, W] -> the same."""
    n, _, h, w = images.shape
    padded = F.pad(torch.where(torch.rand(n, 1, 1, 1) < 0.5, images.flip(3), images), (4, 4, 4, 4))
    down, right = torch.randint(0, 9, (2, n)).tolist()
    return torch.stack([padded[i, :, down[i] : down[i] + h, right[i] : right[i] + w] for i in range(n)])
