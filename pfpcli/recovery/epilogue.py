"""Epilogue: the element-wise operations between the result of a layer and the next call that reads it.

    clip(scale * y + shift + share * other)

y is the result of the layer. Batch norms set scale and shift, an addition (the end of a residual branch) sets other and
share, and a clipping activation (ReLU) sets the limits. Each of the three may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.rules.statistics import NORMS
from pfpcli.graph.calls import bind
from pfpcli.graph.graph import is_tensor
from pfpcli.recovery.paired_run import PairedRun

#: A channel with a smaller scale cannot compensate for anything: the division by the scale would explode.
_TINY = 1e-6


@dataclass(frozen=True)
class Epilogue:
    """The operations that follow a layer of a cut network.

    Attributes:
        scale, shift, share: float[C, 1, ...] or float[].
        other: the node that is added; None if there is no addition, or if one of the networks has not computed the
            other summand yet.
        limits: the smallest and the largest value of the clipped sum; (-inf, inf) without clipping.
    """

    scale: Tensor
    shift: Tensor
    share: Tensor
    other: Node | None = None
    limits: tuple[float, float] = (-inf, inf)

    @classmethod
    def of(cls, node: Node, pair: PairedRun) -> Epilogue:
        """Follow the result of a call for as long as exactly one call reads it."""
        found, here = cls(torch.ones(()), torch.zeros(()), torch.ones(())), node
        while len(here.users) == 1:
            user = next(iter(here.users))
            rule = rules.find(user.target) if user.op == "call_function" else None
            if str(user.target) in NORMS and user.args[0] is here:
                found = found._after_norm(user, pair)
            elif str(user.target) == "aten.add.Tensor" and not user.kwargs and found.other is None:
                other = _other_summand(user, here, pair)
                if other is None:
                    break
                found = replace(found, other=other)
            elif rule is not None and rule.clips is not None:
                return replace(found, limits=rule.clips(user))
            elif str(user.target) != "<built-in function getitem>":
                break
            here = user
        return found

    def _after_norm(self, norm: Node, pair: PairedRun) -> Epilogue:
        """This epilogue, extended by a batch norm."""
        given = bind(norm)
        rank: int = given["input"].meta["val"].dim()
        tensors = {
            name: pair.tensor(given[name]).detach().view(-1, *[1] * (rank - 2))
            for name in ("running_mean", "running_var", "weight", "bias")
            if given[name] is not None
        }
        scale = (tensors["running_var"] + given["eps"]).rsqrt() * tensors.get("weight", 1.0)
        shift = tensors.get("bias", 0.0) - scale * tensors["running_mean"]
        return replace(self, scale=scale * self.scale, shift=scale * self.shift + shift, share=scale * self.share)

    @property
    def is_clipped(self) -> bool:
        """Whether the sum is clipped."""
        return self.limits != (-inf, inf)

    def of_rows(self, groups: int) -> Epilogue:
        """This epilogue for rows of results: scale, shift and share as float[G, 1, O] or float[]."""

        def row(each: Tensor) -> Tensor:
            return each.reshape(groups, 1, -1) if each.dim() else each

        return replace(self, scale=row(self.scale), shift=row(self.shift), share=row(self.share))

    def target(self, made: Tensor, before: Tensor, now: Tensor) -> Tensor:
        """The result of the layer that makes the sum equal to the original's sum.

        Args:
            made: the original's result of the layer.
            before: the other summand in the original.
            now: the other summand in the cut network.
        """
        return made + torch.where(self.scale.abs() > _TINY, self.share / self.scale, 0.0) * (before - now)

    def residual(self, was: Tensor, now: Tensor, scale: Tensor) -> Tensor:
        """What the layer's result lacks for the clipped sums of both networks to be equal.

        The residual is 0 where both sums are clipped to the same limit.

        Args:
            was: the original's sum before clipping.
            now: the cut network's sum before clipping.
            scale: the scale of the epilogue; all three tensors have the same shape.
        """
        low, high = self.limits
        wanted = torch.where(was <= low, now.clamp(max=low), torch.where(was >= high, now.clamp(min=high), was))
        return torch.where(scale.abs() > _TINY, (wanted - now) / scale, 0.0)


def _other_summand(call: Node, here: Node, pair: PairedRun) -> Node | None:
    """The other summand of an addition; None if its shape differs or if it is not computed yet.

    If the other summand is not computed yet, its own layer will compensate for the error of this branch.
    """
    others = [each for each in call.args if each is not here]
    other = others[0] if len(others) == 1 else None
    if not isinstance(other, Node) or not is_tensor(other):
        return None
    return other if other.meta["val"].shape == here.meta["val"].shape and pair.is_known(other) else None
