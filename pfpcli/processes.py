"""Processes: several that torchrun has started work as one; each takes its share of the images.

    torchrun --nproc-per-node 2 -m pfpcli compress model.pt --calib ./imgs

All go through the same steps and know of all batches, but only look into their own. What they have summed up or found
to be the largest is combined by `total` and `largest`, in the same order everywhere, so that all decide alike. When
there is nothing left to share, `finish` lets the first one go on alone: it alone talks and writes.

With one process every function here gives back what it is given, and torch is not imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from pfpcli.errors import Dismissed, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_T = TypeVar("_T")

#: What torchrun says to each process it starts.
_TOLD = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Where the one that fails first leaves a note for the others.
_FAILED = "pfp-failed"


class _Together:
    """What this process has joined.

    Attributes:
        rank: which of them it is.
        count: how many there are.
        store: where they leave notes for each other; None before they have met and after they have parted.
    """

    rank: int = 0
    count: int = 1
    store: Any = None


_now = _Together()


def start() -> None:
    """Meet the processes that torchrun has started together with this one, if it has."""
    if not is_one_of_several():
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, count = next(rendezvous("env://"))
    distributed.init_process_group(backend, store=PrefixStore("pfp", store), rank=rank, world_size=count)
    _now.rank, _now.count, _now.store = rank, count, store


def finish() -> None:
    """There is nothing left to share: the first process goes on alone, and the others end.

    Raises:
        Dismissed: this is one of the others.
    """
    if _now.count == 1:
        return
    from torch import distributed

    rank = _now.rank
    distributed.barrier()
    distributed.destroy_process_group()
    _now.rank, _now.count, _now.store = 0, 1, None
    if rank:
        raise Dismissed


def is_one_of_several() -> bool:
    """Whether torchrun has started this process, and others with it."""
    return all(name in os.environ for name in _TOLD) and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Whether this process is the one that talks and writes; known before they have met."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def is_first_to_fail() -> bool:
    """Whether an error is this process's to tell: of one that all have, and of what follows from it, one tells."""
    if _now.store is None:
        return is_first()
    try:
        return bool(_now.store.add(_FAILED, 1) == 1)
    except RuntimeError:  # whoever kept the notes is gone
        return is_first()


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
    distributed.all_gather_object(values, value)
    return values


def of_first(make: Callable[[], _T]) -> _T:
    """What the first process makes, for all of them; anything that can be pickled."""
    if _now.count == 1:
        return make()
    from torch import distributed

    values: list[Any] = [None if _now.rank else make()]
    distributed.broadcast_object_list(values)
    made: _T = values[0]
    return made


def barrier() -> None:
    """Wait until all processes are here."""
    if _now.count > 1:
        from torch import distributed

        distributed.barrier()
