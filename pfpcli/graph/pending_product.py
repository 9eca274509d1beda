"""Pending product: a product of all positions with all positions, computed a few rows at a time when it is read.

Attention compares every position of a map with every other one. A map of 90 x 160 has 14,400 positions, and the product
has 207 million numbers: 829 MB, which are written and read again for the product, for its softmax, and for the sum that
reads it. A pending product only knows its two operands. The softmax and the sum are computed on pieces that fit into
the processor's caches, and no piece outlives the next.

Ops read it as they read any tensor; one that has no rule here reads the whole product. It refers to its operands, so
they may not be written to before it is read, nor may it be written to itself. What is not an op of torch (numpy, a
file) cannot read it; `run.Run` gives it to nobody as an output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node
from torch.utils._pytree import tree_map

from pfpcli.graph.invariant import InvariantError

_ATEN = torch.ops.aten

#: A product compares all positions with all positions if it has this many numbers for each number of its operands.
EXPANDING = 16
#: It stays pending if it has this many numbers in all: smaller ones take no time.
FEWEST = 1 << 22
#: The numbers of a piece: on a CPU, and on other devices, where each call takes time to start.
_PIECE, _PIECE_ELSEWHERE = 1 << 19, 1 << 25
#: A piece holds some rows of several matrices: of so few matrices that these are at least as many rows of each.
_ROWS = 32
#: The ops that multiply two tensors of matrices.
_PRODUCTS = (_ATEN.matmul.default, _ATEN.bmm.default, _ATEN.mm.default)


@dataclass(frozen=True)
class _Step:
    """What is computed of each row of a product.

    Attributes:
        compute: (float[..., r, m], the other argument for these rows) -> float[..., r, m].
        other: the other argument: a number, or an operand float[..., n or 1, m or 1] or float[m] or float[].
    """

    compute: Callable[[Tensor, Any], Tensor]
    other: Tensor | float

    def __call__(self, rows: Tensor, some: slice) -> Tensor:
        """Return the step's result for some rows."""
        other = self.other
        if isinstance(other, Tensor) and other.dim() > 1 and other.shape[-2] > 1:
            other = other[..., some, :]
        return self.compute(rows, other)

    @property
    def is_same_for_all_matrices(self) -> bool:
        """Whether the other argument has no batch dimensions."""
        return not isinstance(self.other, Tensor) or self.other.dim() <= 2

    def of(self, matrices: slice) -> _Step:
        """Return the step for some of the matrices float[b, n, m]."""
        is_same = self.is_same_for_all_matrices or len(self.other) == 1  # type: ignore[arg-type]
        return self if is_same else _Step(self.compute, self.other[matrices])  # type: ignore[index]


def expands(node: Node) -> bool:
    """Whether a call of a graph is a product that may stay pending, by the sizes of the example."""
    if node.target not in _PRODUCTS:
        return False
    read = [each.meta["val"] for each in node.all_input_nodes]
    return len(read) == 2 and _is_large(node.meta["val"].numel(), *read)


def pending(target: Any, args: tuple[Any, ...]) -> PendingProduct | None:
    """Return the result of a call as a pending product; None if it has to be computed.

    A product that a derivative is taken of is computed: the derivative needs its numbers.

    Args:
        target: what is called.
        args: its arguments.
    """
    if target not in _PRODUCTS or len(args) != 2:
        return None
    left, right = args
    if any(type(x) not in (Tensor, torch.nn.Parameter) or x.dim() < 2 for x in args):
        return None
    same = left.shape[:-2] == right.shape[:-2] and left.dtype == right.dtype and left.is_floating_point()
    if not same or not _is_large(left.shape[:-1].numel() * right.shape[-1], left, right):
        return None
    if torch.is_grad_enabled() and (left.requires_grad or right.requires_grad):
        return None
    if torch.is_autocast_enabled(left.device.type):  # it decides the type of the product
        return None
    if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in args):  # several runs at once
        return None
    return PendingProduct(left, right)


def _is_large(numbers: int, left: Tensor, right: Tensor) -> bool:
    return numbers >= FEWEST and numbers >= EXPANDING * (left.numel() + right.numel())


class PendingProduct(Tensor):
    """A product of two tensors of matrices, and what follows on each of its rows.

    Args:
        left: float[..., n, k].
        right: float[..., k, m].
        steps: what follows on each row of the product, in this order.
        is_turned: whether the value is the transpose: float[..., m, n] instead of float[..., n, m].
    """

    left: Tensor
    right: Tensor
    steps: tuple[_Step, ...]
    is_turned: bool

    @staticmethod
    def __new__(  # noqa: D102 - the class says it
        cls, left: Tensor, right: Tensor, steps: tuple[_Step, ...] = (), is_turned: bool = False
    ) -> PendingProduct:
        sizes = [*left.shape[:-1], right.shape[-1]]
        if is_turned:
            sizes[-2:] = reversed(sizes[-2:])
        made: PendingProduct = Tensor._make_wrapper_subclass(cls, sizes, dtype=left.dtype, device=left.device)
        made.left, made.right, made.steps, made.is_turned = left, right, steps, is_turned
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Compute an op in pieces, or put it off; an op without a rule gets whole tensors.

        Raises:
            InvariantError: the op writes to a pending product.
        """
        if func._schema.is_mutable and isinstance((kwargs or {}).get("out", args[0]), cls):
            raise InvariantError(f"{func} writes to a product that has not been computed")
        rule = _RULES.get(func)
        found = None if rule is None or kwargs else rule(*args)
        if found is not None:
            return found
        args, kwargs = tree_map(lambda x: x.whole() if isinstance(x, cls) else x, (args, kwargs or {}))
        return func(*args, **kwargs)

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield the product, not turned, in pieces: some of its n rows, float[..., r, m]."""
        columns = self.right.shape[:-2].numel() * self.right.shape[-1]
        count, at_once = self.left.shape[-2], max(1, self._piece // columns)
        for first in range(0, count, at_once):
            some = slice(first, min(first + at_once, count))
            yield some, self._after_steps(self.left[..., some, :] @ self.right, some)

    def whole(self) -> Tensor:
        """Return the value."""
        found = self._after_steps(self.left @ self.right, slice(None))
        return found.transpose(-1, -2).contiguous() if self.is_turned else found

    @property
    def held_bytes(self) -> int:
        """The memory that its operands take."""
        others = (step.other for step in self.steps)
        return sum(x.nbytes for x in (self.left, self.right, *others) if isinstance(x, Tensor))

    def parts(self) -> Iterator[tuple[slice, PendingProduct]]:
        """Yield the matrices float[b, ...] of the value, as few at a time as make pieces of `_ROWS` rows."""
        together = max(1, self._piece // (_ROWS * self.right.shape[-1]))
        for first in range(0, len(self), together):
            some = slice(first, first + together)
            steps = tuple(step.of(some) for step in self.steps)
            yield some, PendingProduct(self.left[some], self.right[some], steps, self.is_turned)

    @property
    def _piece(self) -> int:
        return _PIECE if self.left.device.type == "cpu" else _PIECE_ELSEWHERE

    def _after_steps(self, rows: Tensor, some: slice) -> Tensor:
        for step in self.steps:
            rows = step(rows, some)
        return rows

    def then(self, step: _Step) -> PendingProduct:
        """Return the value after one more step on each row."""
        return PendingProduct(self.left, self.right, (*self.steps, step), self.is_turned)

    def turned(self) -> PendingProduct:
        """Return the transpose of the value."""
        return PendingProduct(self.left, self.right, self.steps, not self.is_turned)

    def again(self) -> PendingProduct:
        """Return the same value; a view has to be a new tensor."""
        return PendingProduct(self.left, self.right, self.steps, self.is_turned)

    def by_its_last_dimension(self) -> PendingProduct | None:
        """Return the same value as a product that is not turned; None if steps on its rows have been put off."""
        if not self.is_turned:
            return self
        if self.steps:
            return None
        return PendingProduct(self.right.transpose(-1, -2), self.left.transpose(-1, -2))


def _softmax(x: PendingProduct, dim: int, half_to_float: bool) -> PendingProduct | None:
    dim %= x.dim()
    if half_to_float or dim < x.dim() - 2:
        return None
    is_last = dim == x.dim() - 1
    found = (x if is_last else x.turned()).by_its_last_dimension()
    if found is None:
        return None
    found = found.then(_Step(torch.softmax, -1))
    return found if is_last else found.turned()


def _elementwise(compute: Callable[[Tensor, Any], Tensor], *, commutes: bool) -> Callable[..., PendingProduct | None]:
    """Return the rule of an op of a pending product and a number, or a tensor that is no larger."""

    def rule(x: object, other: object) -> PendingProduct | None:
        if commutes and isinstance(other, PendingProduct):
            x, other = other, x
        if not isinstance(x, PendingProduct) or isinstance(other, PendingProduct):
            return None
        if isinstance(other, Tensor):
            if other.dtype != x.dtype or torch.broadcast_shapes(x.shape, other.shape) != x.shape:
                return None
            other = _beside_rows(other, x.is_turned)
        return x.then(_Step(compute, other)) if isinstance(other, (Tensor, int, float)) else None

    return rule


def _beside_rows(other: Tensor, is_turned: bool) -> Tensor:
    """Return an operand of a pending product as one of the product that is not turned, without needless dimensions."""
    while other.dim() > 2 and len(other) == 1:
        other = other[0]
    if not is_turned or not other.dim():
        return other
    return other.unsqueeze(1) if other.dim() == 1 else other.transpose(-1, -2)


def _permuted(x: PendingProduct, dims: list[int]) -> PendingProduct | None:
    order = [dim % x.dim() for dim in dims]
    kept = [*range(x.dim())]
    if order == kept:
        return x.again()
    return x.turned() if order == [*kept[:-2], kept[-1], kept[-2]] else None


def _transposed(x: PendingProduct, a: int, b: int) -> PendingProduct | None:
    both = {a % x.dim(), b % x.dim()}
    return x.turned() if both == {x.dim() - 1, x.dim() - 2} else x.again() if len(both) == 1 else None


def _viewed(x: PendingProduct, sizes: list[int], *_: object) -> PendingProduct | None:
    """The same matrices with other batch dimensions; -1 stands for the size that is left."""
    if [*sizes[-2:]] != [*x.shape[-2:]] or len(sizes) < 2:
        return None
    if [*sizes] == [*x.shape]:
        return x.again()
    lead = sizes[:-2]
    if not all(step.is_same_for_all_matrices for step in x.steps):
        return None
    left, right = (each.reshape(*lead, *each.shape[-2:]) for each in (x.left, x.right))
    return PendingProduct(left, right, x.steps, x.is_turned)


def _expanded(x: PendingProduct, sizes: list[int], implicit: bool = False) -> PendingProduct | None:
    same = len(sizes) == x.dim() and all(a in (-1, b) for a, b in zip(sizes, x.shape, strict=True))
    return x.again() if same else None


def _multiplied(a: Tensor, b: Tensor) -> Tensor | None:
    """The product of a pending product with a tensor: float[n, m], or float[b, n, m] with float[b, m, k]."""
    if isinstance(a, PendingProduct) == isinstance(b, PendingProduct):
        return None
    product, x, times = (a, b, _before) if isinstance(a, PendingProduct) else (b, a, _behind)
    assert isinstance(product, PendingProduct)
    if product.dim() == 2:
        return times(product, x)
    return torch.cat([times(part, x[some]) for some, part in product.parts()])


def _before(product: PendingProduct, x: Tensor) -> Tensor:
    """Return product @ x."""
    if not product.is_turned:
        return torch.cat([rows @ x for _, rows in product.rows()], -2)
    total = x.new_zeros(*product.shape[:-1], x.shape[-1])
    for some, rows in product.rows():
        total += rows.transpose(-1, -2) @ x[..., some, :]
    return total


def _behind(product: PendingProduct, x: Tensor) -> Tensor:
    """Return x @ product."""
    if product.is_turned:
        return torch.cat([x @ rows.transpose(-1, -2) for _, rows in product.rows()], -1)
    total = x.new_zeros(*x.shape[:-1], product.shape[-1])
    for some, rows in product.rows():
        total += x[..., some] @ rows
    return total


#: Op -> its rule: arguments of the op -> what it makes, None where it has to read the whole product.
_RULES: dict[Any, Callable[..., Tensor | None]] = {
    _ATEN._softmax.default: _softmax,
    _ATEN.add.Tensor: _elementwise(torch.add, commutes=True),
    _ATEN.mul.Tensor: _elementwise(torch.mul, commutes=True),
    _ATEN.div.Tensor: _elementwise(torch.div, commutes=False),
    _ATEN.permute.default: _permuted,
    _ATEN.transpose.int: _transposed,
    _ATEN.view.default: _viewed,
    _ATEN._unsafe_view.default: _viewed,
    _ATEN.reshape.default: _viewed,
    _ATEN.expand.default: _expanded,
    _ATEN.bmm.default: _multiplied,
    _ATEN.mm.default: _multiplied,
}
