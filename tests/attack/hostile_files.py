"""Hostile files of pfp's own formats: what the commands do with them."""

from __future__ import annotations

import contextlib
import io
import os
from functools import cache
from pathlib import Path

import numpy as np

from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cli.main import run
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.errors import InputError
from pfpcli.planning.plan import Budget, everything
from properties import random_drop
from traced import grouped


@cache
def _groups() -> Groups:
    return grouped("grouped")


def planned_file() -> PlanFile:
    """Return a plan of a small network, with factors."""
    groups = _groups()
    alive = groups.alive(random_drop(groups, 0))
    whole = everything(groups, Predictor(groups), Budget())
    file = PlanFile.of_plan(whole, Slicing(groups.labelled, alive), readers(groups))
    file.scale.update({each.name: np.ones(len(each.contraction.labels)).tolist() for each in readers(groups)})
    return file


def applied(file: PlanFile) -> None:
    """Apply a plan to its network: what it keeps is what its file says, or it is refused."""
    plan = file.plan(_groups(), readers(_groups()))
    again = PlanFile.of_plan(plan, Slicing(_groups().labelled, plan.alive), ()).tensors
    for tensor, dims in file.tensors.items():
        for dim, kept in dims.items():
            assert again.get(tensor, {}).get(dim, kept) == kept, f"keeps something else of {tensor}"


def commanded(words: list[str], folder: Path) -> str:
    """Run a command in a folder; returns how it ended.

    Raises:
        InputError: it refused something.
        RuntimeError: it ended otherwise, or printed what would command a terminal or a browser.
    """
    said, shown, before = io.StringIO(), io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            code = run(words)
    finally:
        os.chdir(before)
    shown.flush()
    text = shown.buffer.getvalue().decode()  # type: ignore[attr-defined]
    if code not in (0, 1, 2) or "bug in pfp" in said.getvalue() or "\x1b" in said.getvalue() + text:
        raise RuntimeError(said.getvalue() or text[-200:])
    if code == 2:
        raise InputError(said.getvalue().strip().partition("\n")[0])
    return "works"
