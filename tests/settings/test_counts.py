"""Numbers that no step could use are refused before anything is loaded."""

from __future__ import annotations

import pytest

from pfpcli.errors import InputError
from pfpcli.settings import CompressSettings, VerifySettings
from pfpcli.settings.python import from_python

FILES = {"model": "model.pt", "calib": "imgs"}


@pytest.mark.parametrize("name", ["samples", "steps", "multiple_of", "min_channels", "threads", "seed"])
def test_a_number_of_far_too_many_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"--{name.replace('_', '-')} 10+: expected"):
        from_python(CompressSettings, {**FILES, name: 10**18 if name != "seed" else 10**30})


def test_far_too_many_inputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"--inputs 10+: expected at most 2,147,483,647"):
        from_python(VerifySettings, {"model": "a.onnx", "inputs": 10**12})


def test_a_message_is_one_line_whatever_a_file_is_called() -> None:
    error = InputError("a\nPASS  model.pt.onnx: no such file", "see\r\nerror: b")
    assert error.message == "a PASS  model.pt.onnx: no such file"
    assert "\n" not in error.hint
