"""Processes: several processes that torchrun has started work as one; each computes a share of the images.

    torchrun --nproc-per-node 2 -m pfpcli compress model.pt --calib ./imgs

All processes run the same steps and see the sizes of all batches, but each computes only its own batches. `total` and
`largest` combine their sums and maxima in the same order everywhere, so all processes decide alike. When nothing is
left to share, `finish` ends all processes but the first. Only the first process prints and writes files.

With one process, every function here returns its argument, and torch is not imported.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pfpcli.errors import Dismissed, InputError, PfpError

if TYPE_CHECKING:  # types only: torch takes seconds to import, and most commands do not need it here
    import torch
    from torch import Tensor

_T = TypeVar("_T")

#: The environment variables that torchrun sets for each process.
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
#: Keys of the store. A process that fails counts up the first; the process that has printed its error sets the second.
_FAILED, _PRINTED = "pfp-failed", "pfp-told"
#: How long a process that failed later waits for the second key.
_PATIENCE = timedelta(seconds=5)


@dataclass
class _Processes:
    """The processes that share the work.

    Attributes:
        rank: the index of this process.
        count: the number of processes.
        met: how often this process has called `start` with others.
        store: the key-value store that the processes share.
    """

    rank: int = 0
    count: int = 1
    met: int = 0
    store: Any = None


_joined = _Processes()


def start() -> None:
    """Connect to the processes that torchrun has started together with this one, if there are any."""
    if not is_one_of_several():
        return
    import torch
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore

    _joined.met += 1
    store = PrefixStore(f"pfp-{_joined.met}", _store())
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    with _communicating():
        distributed.init_process_group(backend, store=store, rank=rank, world_size=count)
    _joined.rank, _joined.count = rank, count


def finish() -> None:
    """End all processes but the first, when no work is left to share.

    Raises:
        Dismissed: this is not the first process.
    """
    if _joined.count == 1:
        return
    from torch import distributed

    barrier()
    distributed.destroy_process_group()
    _joined.rank, _joined.count = 0, 1
    if not is_first():
        raise Dismissed


def is_one_of_several() -> bool:
    """Whether torchrun has started this process together with others."""
    return all(name in os.environ for name in _TORCHRUN) and os.environ["WORLD_SIZE"] != "1"


def is_first() -> bool:
    """Whether this process prints and writes files; known before `start`."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def tell(say: Callable[[], None]) -> None:
    """Print an error, unless another process has already failed: one process prints the first error.

    torchrun ends all processes when one has ended, so the others wait until the error is printed.

    Args:
        say: prints the error.
    """
    if not is_one_of_several():
        say()
        return
    try:
        if _store().add(_FAILED, 1) > 1:
            _store().wait([_PRINTED], _PATIENCE)
            return
    except RuntimeError:  # the store is closed, or no process has printed in time
        if not is_first():
            return
    say()
    with contextlib.suppress(RuntimeError):
        _store().set(_PRINTED, "")


def _store() -> Any:
    """The key-value store of torchrun."""
    if _joined.store is None:
        from torch.distributed.rendezvous import rendezvous

        _joined.store = next(rendezvous("env://"))[0]
    return _joined.store


@contextlib.contextmanager
def _communicating() -> Iterator[None]:
    """Turn an error of the communication into a `PfpError`."""
    try:
        yield
    except RuntimeError as error:
        hint = "read the output of torchrun: it says which process ended, and why"
        raise PfpError("torchrun: the processes have lost their connection", hint) from error


def rank() -> int:
    """The index of this process."""
    return _joined.rank


def count() -> int:
    """The number of processes that share the work."""
    return _joined.count


def own(device: torch.device) -> torch.device:
    """The device of this process; each process has a GPU of its own.

    Raises:
        InputError: there are fewer GPUs than processes.
    """
    if _joined.count > 1 and device.type == "cuda":
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
    """Whether this process computes a batch. A batch of another process has only a shape (see `images.decode`)."""
    return not images.is_meta


def total(x: _T) -> _T:
    """The sum over all processes of a tensor, an array or a number, which has the same shape in each process."""
    combined: _T = _combined(x, "SUM")
    return combined


def largest(x: _T) -> _T:
    """The element-wise maximum over all processes of a tensor, an array or a number."""
    combined: _T = _combined(x, "MAX")
    return combined


def _combined(x: Any, how: str) -> Any:
    if _joined.count == 1:
        return x
    import numpy as np
    import torch
    from torch import Tensor, distributed

    found = x.detach().clone() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    found = (found if found.is_cuda else found.cpu()).contiguous()
    if found.numel():
        with _communicating():
            distributed.all_reduce(found, getattr(distributed.ReduceOp, how))
    if isinstance(x, Tensor):
        return found.to(x.device)
    return found.numpy() if isinstance(x, np.ndarray) else type(x)(found.item())


def gathered(value: _T) -> list[_T]:
    """The values of all processes in order; a value can be any object that can be pickled."""
    if _joined.count == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * _joined.count
    with _communicating():
        distributed.all_gather_object(values, value)
    return values


def of_first(make: Callable[[], _T]) -> _T:
    """The value that `make` returns in the first process, for all processes; any object that can be pickled."""
    if _joined.count == 1:
        return make()
    from torch import distributed

    values: list[Any] = [None if _joined.rank else make()]
    with _communicating():
        distributed.broadcast_object_list(values)
    made: _T = values[0]
    return made


def barrier() -> None:
    """Wait until all processes have reached this call."""
    if _joined.count > 1:
        from torch import distributed

        with _communicating():
            distributed.barrier()
