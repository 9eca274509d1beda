"""Products of all positions with all positions are computed in pieces, and say the same as computed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.graph import pending_product
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.pending_product import PendingProduct, expands, pending
from pfpcli.graph.trace import trace
from properties import assert_equals_masked, random_drop
from zoo import Calls, position_attention

aten = torch.ops.aten


@pytest.fixture(autouse=True)
def small_products_stay_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_product, "FEWEST", 1)
    monkeypatch.setattr(pending_product, "EXPANDING", 0)
    monkeypatch.setattr(pending_product, "_PIECE", 40)
    monkeypatch.setattr(pending_product, "_ROWS", 3)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def random(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(len(sizes)), dtype=torch.float64)


def softmax(x: Tensor, dim: int) -> Tensor:
    return aten.softmax.int(x, dim)


def turn(x: Tensor) -> Tensor:
    return aten.transpose.int(x, -1, -2)


def before(x: Tensor) -> Tensor:
    return aten.matmul.default(x, random(2, 11, 3))


def behind(x: Tensor) -> Tensor:
    return aten.bmm.default(random(2, 3, 11), x)


#: What follows the product of float[2, 11, 4] and float[2, 4, 11].
READ_IN_PIECES = {
    "sums the rows": before,
    "sums the columns": behind,
    "softmax of rows": lambda p: before(softmax(p, 2)),
    "softmax of columns": lambda p: before(softmax(p, 1)),
    "softmax, turned": lambda p: behind(aten.permute.default(softmax(p, -1), [0, 2, 1])),
    "turned, softmax": lambda p: behind(softmax(turn(p), -1)),
    "turned, softmax of columns": lambda p: before(softmax(turn(p), 1)),
    "scaled": lambda p: before(softmax(aten.div.Tensor(aten.mul.Tensor(p, 3), 2.0), -1)),
    "scaled by a tensor": lambda p: before(softmax(aten.mul.Tensor(torch.tensor(0.3).double(), p), -1)),
    "a mask of columns": lambda p: before(softmax(aten.add.Tensor(p, random(11)), -1)),
    "turned, a mask of columns": lambda p: before(aten.add.Tensor(turn(p), random(11))),
    "a bias of pairs": lambda p: before(softmax(aten.add.Tensor(p, random(1, 11, 11)), -1)),
    "turned, a bias of pairs": lambda p: before(softmax(aten.add.Tensor(turn(p), random(11, 11)), -2)),
    "a bias of each image": lambda p: before(softmax(aten.add.Tensor(p, random(2, 11, 11)), -1)),
    "heads summed, then merged": lambda p: aten.view.default(
        aten.matmul.default(random(1, 2, 3, 11), aten.view.default(turn(softmax(p, -1)), [1, 2, 11, 11])), [1, 6, 11]
    ),
    "heads": lambda p: aten.matmul.default(softmax(aten.view.default(p, [1, 2, 11, 11]), -1), random(1, 2, 11, 3)),
}
#: And what reads the product as a whole.
READ_WHOLE = {
    "another op": lambda p: aten.relu.default(p),
    "two softmaxes": lambda p: before(softmax(softmax(p, 2), 1)),
    "softmax of columns, then a view": lambda p: aten.view.default(softmax(p, 1), [2, 121]),
    "turned, then a view": lambda p: aten.view.default(aten.contiguous.default(turn(p)), [2, 121]),
    "turned, then a layer": lambda p: aten.linear.default(turn(p), random(3, 11)),
    "its square": lambda p: aten.matmul.default(p, p),
    "matrices of another size": lambda p: aten.reshape.default(p, [22, 11]),
    "positions before images": lambda p: aten.permute.default(p, [1, 0, 2]),
    "a larger tensor": lambda p: aten.mul.Tensor(p, random(3, 1, 11, 11)),
    "a tensor that it divides": lambda p: aten.div.Tensor(random(11), p),
    "its sum": lambda p: aten.add.Tensor(p, p),
    "a part of a sum": lambda p: aten.add.Tensor(p, random(11), alpha=2),
    "a bias of each image, then heads": lambda p: aten.view.default(
        aten.add.Tensor(p, random(2, 11, 11)), [1, 2, 11, 11]
    ),
    "sum over images": lambda p: aten.sum.dim_IntList(p, [0]),
}


def product() -> tuple[Tensor, Tensor]:
    return random(2, 11, 4), random(2, 4, 11)


def both(follows: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    left, right = product()
    found = pending(aten.matmul.default, (left, right))
    assert isinstance(found, PendingProduct)
    return follows(found), follows(left @ right)


@pytest.mark.parametrize("follows", READ_IN_PIECES.values(), ids=READ_IN_PIECES)
def test_what_reads_a_product_in_pieces_says_the_same_and_never_makes_the_whole(
    follows: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(self: PendingProduct) -> Tensor:
        raise AssertionError("made the whole product")

    monkeypatch.setattr(PendingProduct, "whole", whole)
    found, expected = both(follows)
    assert type(found) is Tensor
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("follows", READ_WHOLE.values(), ids=READ_WHOLE)
def test_an_op_without_a_rule_for_pieces_reads_the_whole_product(
    follows: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, read = PendingProduct.whole, []
    monkeypatch.setattr(PendingProduct, "whole", lambda self: read.append(self) or whole(self))
    found, expected = both(follows)
    assert read
    assert type(found) is Tensor
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_a_pending_product_says_its_sizes_as_a_tensor_does() -> None:
    left, right = product()
    found = pending(aten.matmul.default, (left[:, :9], right))
    assert found is not None
    assert found.shape == (2, 9, 11)
    assert found.turned().shape == (2, 11, 9)
    assert (found.dtype, found.numel(), found.nbytes) == (torch.float64, 198, 1584)
    assert torch.equal(found.turned().whole(), (left[:, :9] @ right).transpose(1, 2))


def test_a_product_is_computed_at_once_where_a_derivative_is_taken() -> None:
    left, right = product()
    with torch.enable_grad():
        assert pending(aten.matmul.default, (left.requires_grad_(), right)) is None


def test_a_small_product_and_one_of_operands_as_large_are_computed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = product()
    monkeypatch.setattr(pending_product, "FEWEST", 243)
    assert pending(aten.matmul.default, both) is None
    monkeypatch.setattr(pending_product, "FEWEST", 242)
    assert pending(aten.matmul.default, both) is not None
    monkeypatch.setattr(pending_product, "EXPANDING", 2)
    assert pending(aten.matmul.default, both) is None


def test_a_product_is_computed_at_once_where_a_context_decides_its_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert pending(aten.matmul.default, product()) is None


def test_a_pending_product_is_not_written_to() -> None:
    found = pending(aten.matmul.default, product())
    assert found is not None
    with pytest.raises(InvariantError, match=r"aten.mul_.Tensor writes to a product"):
        found.mul_(0)
    with pytest.raises(InvariantError, match=r"aten.add.out writes to a product"):
        torch.add(random(2, 11, 11), 1, out=found)
    assert torch.equal(random(2, 11, 11).add_(found), random(2, 11, 11) + found.whole())


def test_a_product_that_is_an_output_is_computed() -> None:
    graph = trace(Calls(lambda m, x: x.transpose(1, 2) @ x), (torch.randn(2, 4, 11),))
    (x,) = graph.example
    assert type(graph(x)) is Tensor
    assert torch.allclose(graph(x), x.transpose(1, 2) @ x)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_cut_network_equals_the_masked_original_in_pieces(seed: int, heads: int) -> None:
    inputs = (torch.randn(3, 3, 8, 8),)
    groups = group(label(trace(position_attention(heads).eval(), inputs)))
    graph = groups.labelled.graph
    assert any(map(expands, graph.nodes))
    alive = groups.alive(random_drop(groups, seed))
    smaller = cut(groups.labelled, alive).graph
    assert_equals_masked(groups, alive, smaller, inputs)
    for each in (graph, smaller):
        assert torch.allclose(each(*inputs), each.module(*inputs), rtol=1e-5, atol=1e-6)
