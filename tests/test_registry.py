"""Registers: no name is there twice, the functions they name exist, and tables are read without torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pfpcli.planning import allocations, select
from pfpcli.planning.allocators import allocator
from pfpcli.registry import register, resolve
from pfpcli.scoring import criteria

REGISTERS = {"CRITERIA": criteria, "WEIGHT_CRITERIA": criteria, "ALLOCATIONS": allocations, "SELECTIONS": select}


def test_a_name_that_is_there_twice_is_refused() -> None:
    assert register(("a", 1), ("b", 2)) == {"a": 1, "b": 2}
    with pytest.raises(ValueError, match="a is registered twice"):
        register(("a", 1), ("b", 2), ("a", 3))


@pytest.mark.parametrize(("name", "module"), REGISTERS.items())
def test_every_register_refuses_a_second_row_of_a_name(name: str, module: ModuleType) -> None:
    """The source of the module, with the first row of the table there twice, cannot be imported."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if [target.id for target in targets if isinstance(target, ast.Name)] == [name]:
            rows = statement.value.args  # type: ignore[union-attr]
            rows.append(rows[0])
    twice = ModuleType(module.__name__)
    sys.modules.setdefault(twice.__name__, twice)
    with pytest.raises(ValueError, match=f"{next(iter(getattr(module, name)))} is registered twice"):
        exec(compile(tree, "twice", "exec"), twice.__dict__)


def test_every_row_names_a_function() -> None:
    for row in criteria.CRITERIA.values():
        assert callable(resolve("pfpcli.scoring.criteria", row.function))
        assert row.select in select.SELECTIONS
    for name in allocations.ALLOCATIONS:
        assert callable(allocator(name))


def test_the_tables_are_read_without_torch() -> None:
    code = "import sys, pfpcli.scoring.criteria, pfpcli.planning.allocations; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
