"""Train: gradient descent on a traced network, whatever the loss; the best state on images set aside is what stays.

SGD with Nesterov's momentum. The rate rises over the first steps and then falls along a cosine to zero, over the epochs
or the minutes that are allowed (SGDR's schedule without restarts: Loshchilov & Hutter, ICLR 2017). Batch norms keep
their running statistics and train their scales and shifts.

Training that is interrupted leaves its state in a file, and goes on from there when it is called again.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pfpcli import processes
from pfpcli.errors import Interrupted
from pfpcli.graph.graph import Graph, fetch, is_tensor
from pfpcli.recovery.stream import Labels, Stream

#: Images that one step of the optimizer has seen, at least, where the network takes only a few at a time.
_STEP_IMAGES = 16
#: The part of the training in which the rate rises, and the largest norm of a gradient.
_WARM_UP, _CLIP = 0.05, 5.0
#: Seconds after which the state is written again.
_SAVE = 30.0
#: Times that the network is judged on the way, at most; it is judged after whole epochs.
_CHECKS = 40

#: `loss(x, labels, generator)` of a batch that is where the network is: one number with a gradient.
Loss = Callable[[Tensor, Labels, torch.Generator], Tensor]


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how fast; of two limits the one that is reached first counts.

    Attributes:
        epochs: times that all images are seen; None for no limit.
        minutes: None for no limit.
        rate: the highest learning rate.
        decay: of weights; biases and norms do not decay.
    """

    epochs: int | None
    minutes: float | None
    rate: float
    decay: float = 1e-4

    def done(self, epochs: float, seconds: float) -> float:
        """The part of the training that is done, 0 to 1."""
        parts = [epochs / self.epochs if self.epochs else 0.0, seconds / (60 * self.minutes) if self.minutes else 0.0]
        return min(1.0, max(parts))

    def rate_at(self, done: float) -> float:
        """The learning rate at a part of the training."""
        return self.rate * min(1.0, (done + 1e-3) / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Trained:
    """What training came to.

    Attributes:
        epochs: times that all images were seen; the last one may have been broken off.
        seconds: taken, those before an interrupt included.
        before, after: the figure on the images set aside; `after` is that of the state that stays.
    """

    epochs: float
    seconds: float
    before: float
    after: float


@dataclass(frozen=True)
class Check:
    """What a network is judged by while it is trained.

    Attributes:
        figure: of the network as it is: a fraction, the larger the better.
        images: that it is taken on.
    """

    figure: Callable[[], float]
    images: int

    def noise(self, figure: float) -> float:
        """The standard error of a fraction of so many images (Agresti and Coull's, which is not 0 at 0 and 1)."""
        count = self.images + 4
        fraction = min(1.0, max(0.0, (self.images * figure + 2) / count))
        return math.sqrt(fraction * (1 - fraction) / count)


#: `progress(done, figure)`: the part that is done, 0 to 1, and the best figure so far; called often.
Progress = Callable[[float, float], None]


def silent(done: float, figure: float) -> None:
    """Progress that nobody is told of."""


def train(
    graph: Graph,
    loss: Loss,
    check: Check,
    stream: Stream,
    schedule: Schedule,
    device: torch.device,
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a network in place. It is never worse by the check afterwards: otherwise it is what it was before.

    Args:
        graph: the network.
        loss: what is minimised.
        check: what the network is judged by on the way.
        stream: the images.
        schedule: how long, and how fast.
        device: where to compute.
        state: a file to go on from if it is there and fits, and to write to; it is gone when training has finished.
        progress: told the part that is done, 0 to 1, and the best figure so far.

    Raises:
        KeyboardInterrupt, Interrupted: after the state was written; the network is as it was in the middle.
    """
    with graph.on(device), trainable(graph) as tensors:
        training = _Training(graph, tensors, loss, check, stream, schedule, device, state)
        return training.run(progress)


class _Training:
    """Training as it stands; `_FIELDS`, the tensors and the optimizer are all there is to go on from."""

    _FIELDS = ("epoch", "step", "seconds", "checked", "before", "best", "figure", "held")

    def __init__(
        self,
        graph: Graph,
        tensors: dict[str, nn.Parameter],
        loss: Loss,
        check: Check,
        stream: Stream,
        schedule: Schedule,
        device: torch.device,
        path: Path | None,
    ) -> None:
        self.tensors = tensors
        self.loss = loss
        self.check = check
        self.stream = stream
        self.schedule = schedule
        self.device = device
        self.path = path
        self.optimizer = _optimizer(tensors, schedule.decay)
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.type == "cuda")
        # of several processes each has as many batches to a step as one would have alone
        self.together = max(1, -(-_STEP_IMAGES // stream.batch)) * processes.count()
        self.epoch = self.step = self.checked = 0
        self.seconds = self.before = self.best = self.figure = 0.0
        self.held: dict[str, Tensor] = {}

    def run(self, progress: Progress) -> Trained:
        if not self._read():
            self.before = self.best = self.figure = self.check.figure()
            self.held = self._copied()
        self.placed = _placed(self.loss, self.stream, self.device)
        self._zero()
        try:
            self._train(progress)
        except (KeyboardInterrupt, Interrupted):
            self._write()
            raise
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(self.held[name])
        if self.path is not None and not processes.rank():
            self.path.unlink(missing_ok=True)
        return Trained(self._epochs(), self.seconds, self.before, self.figure)

    def _epochs(self) -> float:
        return self.epoch + min(1.0, self.step * self.together / len(self.stream))

    def _done(self) -> float:
        return self.schedule.done(self._epochs(), self.seconds)

    def _train(self, progress: Progress) -> None:
        began, saved = time.perf_counter() - self.seconds, time.perf_counter()
        finished = False
        while not finished:
            for batches in self._steps():
                self._descend(batches)
                self.step += 1
                self.seconds = processes.largest(time.perf_counter() - began)
                progress(self._done(), self.figure)
                if time.perf_counter() - saved > _SAVE:
                    self._write()
                    saved = time.perf_counter()
                if self._done() >= 1:
                    break
            else:
                self.epoch, self.step = self.epoch + 1, 0
            finished = self._done() >= 1
            due = int(_CHECKS * self._done())
            if finished or due > self.checked:
                self.checked = due
                self._keep(self.check.figure())
                self.seconds = processes.largest(time.perf_counter() - began)

    def _keep(self, found: float) -> None:
        """Hold the network as it is, if its figure is as good as the best one as far as the images can tell.

        Of many figures the largest is a lucky one; the state that was trained longest is not chosen by luck.
        """
        self.best = max(self.best, found)
        if found > self.before and found >= self.best - self.check.noise(self.best):
            self.figure, self.held = found, self._copied()

    def _steps(self) -> Iterator[list[tuple[Tensor, Labels, torch.Generator]]]:
        """What is left of the epoch: the batches of each step of the optimizer."""
        gathered = []
        start = self.step * self.together
        for number, (x, labels) in enumerate(self.stream.epoch(self.epoch, start), start):
            gathered.append((x, labels, self.stream.generator(self.epoch, number)))
            if len(gathered) == self.together:
                yield gathered
                gathered = []
        if gathered:
            yield gathered

    def _descend(self, batches: list[tuple[Tensor, Labels, torch.Generator]]) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(self._done())
        for x, labels, generator in batches[processes.rank() :: processes.count()]:
            loss = self.placed(x, labels, generator) / len(batches)
            self.scaler.scale(loss).backward()
        for tensor in self.tensors.values() if processes.count() > 1 else ():
            tensor.grad = processes.total(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.tensors.values(), _CLIP)
        if self.scaler.is_enabled() or norm.isfinite():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self._zero()

    def _zero(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _copied(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.tensors.items()}

    def _write(self) -> None:
        """Keep the state, as far as there is a place to."""
        if self.path is None or processes.rank():
            return
        content = {name: getattr(self, name) for name in self._FIELDS}
        content |= {"now": self._copied(), "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.save(content, draft)
                draft.replace(self.path)
            finally:
                draft.unlink(missing_ok=True)

    def _read(self) -> bool:
        """Go on from the file, if it is there and of this network."""
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True) if self.path else {}
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return False
        now: dict[str, Tensor] = content.get("now", {})
        if {name: x.shape for name, x in now.items()} != {name: x.shape for name, x in self.tensors.items()}:
            return False
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(now[name])
        for name in self._FIELDS:
            setattr(self, name, content[name])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        return True


def _optimizer(tensors: dict[str, nn.Parameter], decay: float) -> torch.optim.Optimizer:
    weights = [tensor for tensor in tensors.values() if tensor.dim() > 1]
    others = [tensor for tensor in tensors.values() if tensor.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": decay}, {"params": others}]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)


def _placed(loss: Loss, stream: Stream, device: torch.device) -> Loss:
    """The loss of batches as they come, computed on the device.

    With the channels last where the network can do that (a view that was written down for channels first cannot), and
    with half the bits for what is multiplied where the device has instructions for them.
    """
    # first what is fastest: (order in memory, type of what is multiplied)
    kinds = dict.fromkeys((_half(device), None))
    *ways, plain = [(order, kind) for kind in kinds for order in (torch.channels_last, torch.contiguous_format)]

    def placed(order: torch.memory_format, kind: torch.dtype | None) -> Loss:
        def there(x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
            x = x.to(device)
            x = x.contiguous(memory_format=order) if x.dim() == 4 else x
            with torch.autocast(device.type, kind or torch.float16, enabled=kind is not None):
                return loss(x, labels, generator)

        return there

    for order, kind in ways:
        x, labels = next(stream.epoch(0))
        with contextlib.suppress(RuntimeError):
            placed(order, kind)(x, labels, stream.generator(0, 0)).backward()
            return placed(order, kind)
    return placed(*plain)


def _half(device: torch.device) -> torch.dtype | None:
    """The type of 16 bits that a device multiplies fast, None if there is none."""
    if device.type == "cuda":
        return torch.float16
    # there is no public name for it
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return torch.bfloat16 if known is not None and known() else None


@contextmanager
def trainable(graph: Graph) -> Iterator[dict[str, nn.Parameter]]:
    """The tensors that are trained, as parameters, by one of their names; for the time of a block.

    They are the parameters, and whatever a call takes for its weight or bias: in some files these are buffers.
    """
    names: dict[int, list[str]] = {}
    for name in dict.fromkeys(_trained(graph)):
        names.setdefault(id(fetch(graph.module, name)), []).append(name)
    before: list[Tensor] = [fetch(graph.module, aliases[0]) for aliases in names.values()]
    flags = [tensor.requires_grad for tensor in before]
    made = [tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach()) for tensor in before]
    for aliases, parameter in zip(names.values(), made, strict=True):
        _put(graph.module, aliases, parameter.requires_grad_(True))
    try:
        yield {aliases[0]: parameter for aliases, parameter in zip(names.values(), made, strict=True)}
    finally:
        for aliases, parameter, tensor, flag in zip(names.values(), made, before, flags, strict=True):
            parameter.requires_grad_(flag).grad = None
            _put(graph.module, aliases, parameter if parameter is tensor else parameter.detach())


def _trained(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node) and graph.tensor(node).is_floating_point():
            uses = (use for user in node.users for use in _named(user) if use[1] is node)
            if isinstance(graph.tensor(node), nn.Parameter) or any(name in ("weight", "bias") for name, _ in uses):
                yield str(node.target)


def _named(call: Any) -> Iterator[tuple[str, Any]]:
    """The arguments of a call with the names they have in the op's schema."""
    schema = getattr(call.target, "_schema", None)
    if schema is not None:
        yield from zip((argument.name for argument in schema.arguments), call.args, strict=False)
        yield from call.kwargs.items()


def _put(module: nn.Module, names: list[str], tensor: Tensor) -> None:
    """Have a tensor stand under names in the place of another."""
    if fetch(module, names[0]) is tensor:
        return
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        delattr(owner, leaf)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)
