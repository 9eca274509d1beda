"""No table of ONNX ops takes an op twice."""

from __future__ import annotations

import pytest

from pfpcli.onnx_io.ops import KNOWN, REWRITERS, RULES
from pfpcli.onnx_io.ops.tables import NodeEdit, register, rewriter


@pytest.mark.parametrize(("table", "known"), [(RULES, False), (KNOWN, True)])
def test_a_second_rule_of_an_op_is_refused(table: dict[str, object], known: bool) -> None:
    before = dict(table)
    with pytest.raises(ValueError, match="Concat is registered already"):
        register("Concat", known=known)(lambda call: None)
    assert table == before


def test_a_second_rewriter_of_an_op_is_refused() -> None:
    before = dict(REWRITERS)

    def rewrite(edit: NodeEdit) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match="Conv is registered already"):
        rewriter("Conv")(rewrite)
    assert before == REWRITERS


def test_ops_are_registered_together_or_not_at_all() -> None:
    with pytest.raises(ValueError, match="Conv is registered already"):
        register("SomethingNew", "Conv")(lambda call: None)
    assert "SomethingNew" not in RULES
