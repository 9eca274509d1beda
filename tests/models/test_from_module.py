"""A module in memory is loaded as its pickle would be, and stays unchanged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pfpcli.errors import InputError
from pfpcli.models.load import LOADERS, from_module, load, loader_table


def small_net(seed: int = 0) -> nn.Sequential:
    """A network in training mode with batch statistics that are not the initial ones."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 5))
    net(images())
    return net


def images() -> Tensor:
    """float[2, 3, 8, 8]."""
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_module_in_memory_is_the_network_that_its_pickle_is(tmp_path: Path) -> None:
    net = small_net()
    torch.save(net, tmp_path / "net.pt")
    held, read = from_module(net, "net"), load(tmp_path / "net.pt")
    assert (held.name, held.kind, held.program, held.input_size) == ("net", read.kind, None, read.input_size)
    assert not any(part.training for part in held.module.modules())
    with torch.no_grad():
        assert torch.equal(held.module(images()), read.module(images()))


def test_the_module_of_the_caller_stays_unchanged() -> None:
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    held = from_module(net, "net").module
    with torch.no_grad():
        for tensor in held.parameters():
            tensor.zero_()
    assert all(part.training for part in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_hash_is_of_names_types_shapes_and_numbers() -> None:
    net = small_net()
    sha256 = from_module(net, "net").sha256
    assert len(sha256) == 64
    assert sha256 == from_module(small_net(), "another name").sha256
    renamed = nn.Sequential()
    for name, part in zip("abcde", small_net(), strict=True):
        renamed.add_module(name, part)
    others = [small_net(seed=1), renamed, small_net().double(), nn.Sequential(nn.Linear(2, 3)), nn.Linear(2, 3)]
    assert len({sha256, *(from_module(each, "net").sha256 for each in others)}) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.complex64])
def test_a_module_of_any_type_of_numbers_has_a_hash(dtype: torch.dtype) -> None:
    net = nn.ParameterDict(
        {"weight": torch.ones(3, 1, dtype=dtype).expand(3, 2), "scale": torch.tensor(2, dtype=dtype)}
    )
    assert len(from_module(net, "net").sha256) == 64


def test_a_module_is_checked_as_a_file_is() -> None:
    with pytest.raises(InputError, match="net: holds a ReLU without parameters"):
        from_module(nn.ReLU(), "net")
    broken = small_net()
    with torch.no_grad():
        broken[0].weight[0] = float("nan")
    with pytest.raises(InputError, match=r"net: 0\.weight holds 27 NaN of 108 numbers"):
        from_module(broken, "net")


def test_a_module_that_cannot_be_copied_is_refused() -> None:
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(InputError, match="net: cannot be copied to the CPU") as refused:
        from_module(lazy, "net")
    assert "torch.save" in refused.value.hint


def test_two_input_formats_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="onnx is registered already"):
        loader_table(*LOADERS, next(row for row in LOADERS if row.name == "onnx"))
