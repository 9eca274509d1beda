"""ONNX ops: every case of the ONNX standard's own tests that pfp's rules are for comes to what the standard says."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from pfpcli.errors import InputError
from pfpcli.onnx_io.network import network_of
from pfpcli.onnx_io.ops import RULES

#: Cases that are not for pfp, by words in their names.
LEFT_OUT = (
    # what no network of images has, or torch has no numbers for
    *(
        "uint16",
        "uint32",
        "uint64",
        "float8",
        "float4",
        "int4",
        "uint4",
        "int2",
        "string",
        "sequence",
        "bitwise_not_3d",
    ),
    *("training", "empty_set", "bf16_expanded"),
    # sizes that are shown to the network; and which of equals is the first is a matter of taste
    *("window", "test_range", "test_constantofshape", "same_values"),
)
#: Cases that are refused, by words in their names.
REFUSED = (
    "maxpool_with_argmax",
    *("antialias", "exclude_outside", "not_larger", "not_smaller", "tf_crop"),
)


@cache
def cases() -> dict[str, dict[str, Any]]:
    """Op with a rule -> name -> case whose last node is of that op. Collecting them takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numbers that do not fit their types, on purpose
        from onnx.backend.test.case.node import collect_testcases

        every = [each for each in collect_testcases(None) if is_ours(each)]
    found: dict[str, dict[str, Any]] = {op: {} for op in RULES}
    for case in every:
        found[case.model.graph.node[-1].op_type][case.name] = case
    return found


def is_ours(case: Any) -> bool:
    """Whether all ops of a case have rules, and all that it is shown are arrays of numbers."""
    ops = {node.op_type for node in case.model.graph.node} - {"Constant"}
    shown = [x for data in case.data_sets for side in data for x in side]
    plain = all(isinstance(x, (np.ndarray, np.generic)) and np.dtype(x.dtype).kind in "biuf" for x in shown)
    named = any(word in case.name for word in LEFT_OUT)
    return bool(ops) and ops <= {*RULES} and plain and not case.model.functions and not named


def is_refused(name: str) -> bool:
    return any(word in name for word in REFUSED)


def ran(case: Any, given: list[Any]) -> list[torch.Tensor]:
    """What a network of the one op comes to: the first input is an image, all others are in the file."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    named = [each.name for each in model.graph.input]
    held = [numpy_helper.from_array(np.asarray(x), name) for name, x in list(zip(named, given, strict=True))[1:]]
    model.graph.initializer.extend(held)
    with torch.no_grad():
        found = network_of(model)(*(torch.from_numpy(np.array(x)) for x in given[:1]))
    return [each.detach() for each in (found.values() if isinstance(found, dict) else [found])]


def test_every_op_that_has_a_rule_has_a_case_but_those_whose_input_is_a_size() -> None:
    unnamed = {op for op, named in cases().items() if not named}
    # onnxruntime's own ops are compared with it in test_fused
    assert {op for op in unnamed if not op.startswith("com.microsoft.")} == {"Range", "ConstantOfShape"}


@pytest.mark.parametrize("op", RULES)
def test_the_cases_of_the_standard_come_to_what_it_says(op: str, subtests: pytest.Subtests) -> None:
    for name, case in cases()[op].items():
        for given, wanted in case.data_sets if not is_refused(name) else []:
            with subtests.test(name):
                for found, expected in zip(ran(case, given), wanted, strict=True):
                    assert_is(found, expected)


def assert_is(found: torch.Tensor, expected: Any) -> None:
    """A tensor is an array of the standard: shape, dtype and numbers."""
    assert found.shape == expected.shape
    assert found.numpy().dtype == expected.dtype
    loose = 2e-3 if expected.dtype == np.float16 else 1e-5
    np.testing.assert_allclose(found.double().numpy(), np.asarray(expected, np.float64), rtol=1e-3, atol=loose)


def test_what_pfp_does_not_compute_is_refused(subtests: pytest.Subtests) -> None:
    refused = {name: (op, case) for op, named in cases().items() for name, case in named.items() if is_refused(name)}
    assert all(any(word in name for name in refused) for word in REFUSED)
    for name, (op, case) in refused.items():
        with subtests.test(name), pytest.raises(InputError, match=f"does not read {op} "):
            ran(case, case.data_sets[0][0])
