"""Small networks of the kinds that are hard to cut, and their training on CIFAR-10.

Each function of KINDS returns an untrained network for images float[N, 3, 32, 32] with ten classes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from cifar import shifted
from torch import Tensor, nn

#: Images in a training step.
BATCH = 128
#: The peak learning rate of AdamW, and its weight decay.
RATE, DECAY = 2e-3, 0.05
#: The part of the loss that is the teacher's; the rest is that of the labels.
TAUGHT = 0.7


def conv_norm(channels: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and a batch norm."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out))


class InvertedResidual(nn.Module):
    """Sandler et al. 2018: expand, a depthwise convolution, project; a shortcut where the shape stays."""

    def __init__(self, channels: int, out: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = channels * expand
        self.body = nn.Sequential(
            conv_norm(channels, inner, 1),
            nn.ReLU6(),
            conv_norm(inner, inner, 3, stride, groups=inner),
            nn.ReLU6(),
            conv_norm(inner, out, 1),
        )
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        y = self.body(x)
        return x + y if self.shortcut else y


def mobilenet() -> nn.Module:
    """Inverted residuals, as MobileNetV2."""
    layers: list[nn.Module] = [conv_norm(3, 24), nn.ReLU6()]
    channels = 24
    for out, stride in ((24, 2), (24, 1), (48, 1), (48, 1), (96, 2), (96, 1), (96, 1)):
        layers.append(InvertedResidual(channels, out, stride, 4))
        channels = out
    layers += [conv_norm(channels, 384, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(384, 10)]
    return nn.Sequential(*layers)


class Shuffled(nn.Module):
    """Ma et al. 2018: half of the channels through a branch, then the halves interleaved."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        entering = channels if stride == 2 else half
        self.stride = stride
        self.branch = nn.Sequential(
            conv_norm(entering, half, 1),
            nn.ReLU(),
            conv_norm(half, half, 3, stride, groups=half),
            conv_norm(half, half, 1),
            nn.ReLU(),
        )
        self.other = (
            nn.Sequential(conv_norm(channels, channels, 3, 2, groups=channels), conv_norm(channels, half, 1), nn.ReLU())
            if stride == 2
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        left, right = (x, x) if self.stride == 2 else x.chunk(2, 1)
        y = torch.cat([self.other(left), self.branch(right)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shufflenet() -> nn.Module:
    """Channel splits and shuffles, as ShuffleNetV2."""
    layers: list[nn.Module] = [conv_norm(3, 32), nn.ReLU()]
    channels = 32
    for out in (64, 128, 256):
        layers += [Shuffled(channels, out, 2), Shuffled(out, out, 1), Shuffled(out, out, 1)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Liu et al. 2022: a depthwise convolution, a layer norm and two linear layers over the channels, scaled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.expand, self.project = nn.Linear(channels, 4 * channels), nn.Linear(4 * channels, channels)
        self.scale = nn.Parameter(0.1 * torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.project(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


def convnext() -> nn.Module:
    """Layer norms and GELU, as ConvNeXt."""
    layers: list[nn.Module] = [nn.Conv2d(3, 32, 2, 2), ChannelNorm(32)]
    for channels, out, depth in ((32, 64, 2), (64, 128, 2), (128, 0, 4)):
        layers += [ConvNextBlock(channels) for _ in range(depth)]
        if out:
            layers += [ChannelNorm(channels), nn.Conv2d(channels, out, 2, 2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(128), nn.Linear(128, 10))


class Attention(nn.Module):
    """Self-attention and two linear layers, each behind a layer norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.project = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        n, tokens, width = x.shape
        split = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width)
        x = x + self.out(mixed)
        return x + self.project(F.gelu(self.expand(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Patches of 4 by 4 pixels behind a convolution, six blocks, the mean of all tokens."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(3, 48), nn.ReLU(), nn.Conv2d(48, width, 4, 4))
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*[Attention(width, 4) for _ in range(6)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        x = self.stem(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


class Excited(nn.Module):
    """A residual block whose channels are weighted by a squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(channels, out, 3, stride), nn.ReLU(), conv_norm(out, out))
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(out, out // 4, 1), nn.ReLU(), nn.Conv2d(out // 4, out, 1), nn.Sigmoid()
        )
        same = stride == 1 and channels == out
        self.shortcut = nn.Identity() if same else conv_norm(channels, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        y = self.body(x)
        return F.relu(self.shortcut(x) + y * self.squeeze(y))


def se_resnet() -> nn.Module:
    """Squeeze-and-excitation in residual blocks."""
    layers: list[nn.Module] = [conv_norm(3, 24), nn.ReLU()]
    channels = 24
    for out, stride in ((24, 1), (48, 2), (48, 1), (96, 2), (96, 1)):
        layers.append(Excited(channels, out, stride))
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def vgg() -> nn.Module:
    """Plain convolutions, a flatten of 4 by 4 maps, and two linear layers."""
    layers: list[nn.Module] = []
    channels = 3
    for out in (32, 64, 128):
        layers += [conv_norm(channels, out), nn.ReLU(), conv_norm(out, out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * 16, 256), nn.ReLU(), nn.Linear(256, 10))


class DenseBlock(nn.Module):
    """Huang et al. 2017: every layer reads the outputs of all layers before it."""

    def __init__(self, channels: int, growth: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(channels + i * growth),
                nn.ReLU(),
                nn.Conv2d(channels + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """float[N, C, H, W] -> the same with other sizes."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet() -> nn.Module:
    """Concatenated features, as DenseNet."""
    layers: list[nn.Module] = [nn.Conv2d(3, 24, 3, padding=1)]
    channels, growth, depth = 24, 12, 4
    for block in range(3):
        layers.append(DenseBlock(channels, growth, depth))
        channels += growth * depth
        if block < 2:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*layers)


#: name -> the untrained network.
KINDS: dict[str, Callable[[], nn.Module]] = {
    "mobilenet": mobilenet,
    "shufflenet": shufflenet,
    "convnext": convnext,
    "vit": VisionTransformer,
    "se-resnet": se_resnet,
    "vgg": vgg,
    "densenet": densenet,
}


def train(student: nn.Module, teacher: nn.Module, images: Tensor, labels: Tensor, minutes: float) -> None:
    """Train a network in place for a time: AdamW, a cosine, flips and shifts, labels and a teacher's scores.

    Args:
        student: the network.
        teacher: a trained network in eval mode.
        images: float[N, 3, 32, 32].
        labels: int[N].
        minutes: how long.
    """
    torch.manual_seed(0)
    decayed = [p for p in student.parameters() if p.dim() > 1]
    rest = [p for p in student.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}])
    start, done = time.perf_counter(), 0.0
    student.train()
    while done < 1:
        for chosen in torch.randperm(len(images)).split(BATCH):
            shown = shifted(images[chosen])
            with torch.no_grad():
                wanted = (teacher(shown) / 2).log_softmax(1)
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, 20 * done + 0.01) * (1 + math.cos(math.pi * done)) / 2
            scores = student(shown)
            taught = 4 * F.kl_div((scores / 2).log_softmax(1), wanted, reduction="batchmean", log_target=True)
            loss = TAUGHT * taught + (1 - TAUGHT) * F.cross_entropy(scores, labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done = min((time.perf_counter() - start) / (60 * minutes), 1.0)
            if done == 1:
                break
    student.eval()
