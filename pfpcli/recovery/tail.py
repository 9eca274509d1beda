"""Tail: what happens to the result of a layer, value by value, before anything else reads it.

    clip(scale * y + shift + share * other)

by batch norms, by an addition (the end of a residual branch), and by an op that clips (ReLU), each of them or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.graph.calls import bind
from pfpcli.graph.graph import is_tensor
from pfpcli.recovery.lockstep import Lockstep

#: Calls that take running statistics.
NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
#: A channel that is scaled by less than this makes nothing good.
_TINY = 1e-6


@dataclass(frozen=True)
class Tail:
    """What follows a layer of a cut network.

    Attributes:
        scale, shift, share: float[C, 1, ...] or float[].
        other: what is added, None where nothing is, or nothing that both networks have computed by then.
        limits: what the sum is clipped to, (-inf, inf) where it is not.
    """

    scale: Tensor
    shift: Tensor
    share: Tensor
    other: Node | None = None
    limits: tuple[float, float] = (-inf, inf)

    @classmethod
    def of(cls, node: Node, pair: Lockstep) -> Tail:
        """Follow the result of a call, as long as there is one call that reads it."""
        found, here = cls(torch.ones(()), torch.zeros(()), torch.ones(())), node
        while len(here.users) == 1:
            user = next(iter(here.users))
            rule = rules.find(user.target) if user.op == "call_function" else None
            if str(user.target) in NORMS and user.args[0] is here:
                found = found._normed(user, pair)
            elif str(user.target) == "aten.add.Tensor" and not user.kwargs and found.other is None:
                other = _added(user, here, pair)
                if other is None:
                    break
                found = replace(found, other=other)
            elif rule is not None and rule.clips is not None:
                return replace(found, limits=rule.clips(user))
            elif str(user.target) != "<built-in function getitem>":
                break
            here = user
        return found

    def _normed(self, norm: Node, pair: Lockstep) -> Tail:
        """With a batch norm after it."""
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
        """Whether there are values that make no difference."""
        return self.limits != (-inf, inf)

    def wanted(self, pair: Lockstep, made: list[Tensor]) -> Iterator[Tensor]:
        """What the layer should put out so that the sum is what it was, batch by batch.

        Args:
            pair: the networks, at the call.
            made: what the original has put out.
        """
        if self.other is None:
            yield from made
            return
        per = torch.where(self.scale.abs() > _TINY, self.share / self.scale, 0.0)
        for y, before, now in zip(made, pair.original(self.other), pair.now(self.other), strict=True):
            yield y + per * (before - now)

    def sums(self, pair: Lockstep, made: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """(what is clipped in the original, what is added to `scale * y` in the cut network), batch by batch."""
        none = [torch.zeros(())] * len(made)
        before, now = (none, none) if self.other is None else (pair.original(self.other), pair.now(self.other))
        for y, there, here in zip(made, before, now, strict=True):
            was = self.scale * y + self.shift + self.share * there.to(y.device)
            yield was, (self.shift + self.share * here.to(y.device)).expand_as(was)

    def missed(self, was: Tensor, now: Tensor, scale: Tensor) -> Tensor:
        """What the layer lacks so that the sum, clipped, is what it was: 0 where it is clipped to the same already.

        Args:
            was: the sum in the original.
            now: in the cut network.
            scale: that of the tail; all three have one shape.
        """
        low, high = self.limits
        wanted = torch.where(was <= low, now.clamp(max=low), torch.where(was >= high, now.clamp(min=high), was))
        return torch.where(scale.abs() > _TINY, (wanted - now) / scale, 0.0)


def _added(call: Node, here: Node, pair: Lockstep) -> Node | None:
    """What an addition adds; None where that is of another shape or not computed yet.

    In the latter case it is the other that makes good what this one lacks.
    """
    others = [each for each in call.args if each is not here]
    other = others[0] if len(others) == 1 else None
    if not isinstance(other, Node) or not is_tensor(other):
        return None
    return other if other.meta["val"].shape == here.meta["val"].shape and pair.is_known(other) else None
