"""Processes: several that torchrun has started work as one; each takes its share of the images.

    torchrun --nproc-per-node 2 -m pfpcli compress model.pt --calib ./imgs

All go through the same steps and know of all batches, but only look into their own. What they have summed up or found
to be the largest is combined by `total` and `largest`, in the same order everywhere, so that all decide alike. When
there is nothing left to share, `finish` lets the first one go on alone: it alone talks and writes.

With one process every function here gives back what it is given, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pfpcli.errors import Dismissed, InputError, PfpError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_T = TypeVar("_T")

#: What torchrun says to each process it starts.
_SAID = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Notes of the one that fails first: that it has, and that it has said why; how long the others wait for the second.
_FAILED, _TOLD, _PATIENCE = "pfp-failed", "pfp-told", timedelta(seconds=5)


@dataclass
class _Together:
    """What this process has joined.

    Attributes:
        rank: which of them it is.
        count: how many there are.
        met: how often they have met.
        notes: where they leave notes for each other.
    """

    rank: int = 0
    count: int = 1
    met: int = 0
    notes: Any = None


_now = _Together()


def start() -> None:
    """Meet the processes that torchrun has started together with this one, if it has."""
    if not is_one_of_several():
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore

    _now.met += 1
    notes = PrefixStore(f"pfp-{_now.met}", _notes())
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _each_other():
        distributed.init_process_group(backend, store=notes, rank=rank, world_size=count)
    _now.rank, _now.count = rank, count


def finish() -> None:
    """There is nothing left to share: the first process goes on alone, and the others end.

    Raises:
        Dismissed: this is one of the others.
    """
    if _now.count == 1:
        return
    from torch import distributed

    barrier()
    distributed.destroy_process_group()
    _now.rank, _now.count = 0, 1
    if not is_first():
        raise Dismissed


def is_one_of_several() -> bool:
    """Whether torchrun has started this process, and others with it."""
    return all(name in os.environ for name in _SAID) and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Whether this process is the one that talks and writes; known before they have met."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def tell(say: Callable[[], None]) -> None:
    """Say what went wrong, unless another process does: of an error, and of what follows from it, one tells.

    torchrun ends all processes when one has ended, so the others wait until it is told.
    """
    if not is_one_of_several():
        say()
        return
    try:
        if _notes().add(_FAILED, 1) > 1:
            _notes().wait([_TOLD], _PATIENCE)
            return
    except RuntimeError:  # whoever keeps the notes is gone, or nobody has told
        if not is_first():
            return
    say()
    with contextlib.suppress(RuntimeError):
        _notes().set(_TOLD, "")


def _notes() -> Any:
    if _now.notes is None:
        from torch.distributed.rendezvous import rendezvous

        _now.notes = next(rendezvous("env://"))[0]
    return _now.notes


@contextlib.contextmanager
def _each_other() -> Iterator[None]:
    """While processes speak with each other."""
    try:
        yield
    except RuntimeError as error:
        hint = "what torchrun prints says which of them ended, and how"
        raise PfpError("the processes have lost each other", hint) from error


def rank() -> int:
    """Which process this is, from 0."""
    return _now.rank


def count() -> int:
    """How many processes share the work."""
    return _now.count


def own(device: torch.device) -> torch.device:
    """The device of this process, where each has a GPU to itself.

    Raises:
        InputError: there are fewer GPUs than processes.
    """
    if _now.count > 1 and device.type == "cuda":
        import torch

        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there:
            raise InputError(
                f"--device cuda: {there} GPUs for {os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes",
                f"start one for each: `torchrun --nproc-per-node {there} …`, or use `--device cpu`",
            )
        torch.cuda.set_device(local)
    return device


def is_mine(images: Tensor) -> bool:
    """Whether a batch is this process's to look at; of those of others only the size is here (see `decode`)."""
    return not images.is_meta


def total(x: _T) -> _T:
    """The sum over all processes of a tensor, an array or a number; its shape is the same everywhere."""
    combined: _T = _combined(x, "SUM")
    return combined


def largest(x: _T) -> _T:
    """The largest over all processes of a tensor, an array or a number, element by element."""
    combined: _T = _combined(x, "MAX")
    return combined


def _combined(x: Any, how: str) -> Any:
    if _now.count == 1:
        return x
    import numpy as np
    import torch
    from torch import Tensor, distributed

    found = x.detach().clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    found = (found if found.is_cuda else found.cpu()).contiguous()
    if found.numel():
        with _each_other():
            distributed.all_reduce(found, getattr(distributed.ReduceOp, how))
    if isinstance(x, Tensor):
        return found.to(x.device)
    return found.numpy() if isinstance(x, np.ndarray) else type(x)(found.item())


def gathered(value: _T) -> list[_T]:
    """What each process has, in their order; anything that can be pickled."""
    if _now.count == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * _now.count
    with _each_other():
        distributed.all_gather_object(values, value)
    return values


def of_first(make: Callable[[], _T]) -> _T:
    """What the first process makes, for all of them; anything that can be pickled."""
    if _now.count == 1:
        return make()
    from torch import distributed

    values: list[Any] = [None if _now.rank else make()]
    with _each_other():
        distributed.broadcast_object_list(values)
    made: _T = values[0]
    return made


def barrier() -> None:
    """Wait until all processes are here."""
    if _now.count > 1:
        from torch import distributed

        with _each_other():
            distributed.barrier()
