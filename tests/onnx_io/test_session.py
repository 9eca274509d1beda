"""What onnxruntime raises is raised, and not printed as well."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pfpcli.onnx_io.runtime import session


def test_an_error_of_onnxruntime_is_raised_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"]) for name in "xy")
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [2, 40])
    graph = helper.make_graph([node], "graph", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    opened = session(onnx.load_from_string(model.SerializeToString()))
    with pytest.raises(Exception, match="cannot be reshaped"):
        opened.run(None, {"x": np.zeros((2, 48), np.float32)})
    assert capfd.readouterr().err == ""
