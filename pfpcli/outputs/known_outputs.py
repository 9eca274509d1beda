"""Known outputs: what the original puts out for some batches, computed once for all networks it is compared with."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: The most numbers that are kept; the outputs of the other batches are computed whenever they are needed.
HELD = 1 << 24


class KnownOutputs:
    """The outputs of the original that are known from an earlier pass over the same batches."""

    def __init__(self) -> None:
        self._outputs: dict[int, list[Tensor]] = {}
        self._left = HELD

    def of(self, batch: int, compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Return the outputs for a batch, by its number in the pass; compute: makes them where they are unknown."""
        if batch in self._outputs:
            return self._outputs[batch]
        made = compute()
        size = sum(each.numel() for each in made)
        if size <= self._left:
            self._outputs[batch] = made
            self._left -= size
        return made
