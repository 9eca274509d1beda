"""The structure of the repository: imports go one way, packages explain themselves, files and functions stay short."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TESTS = ROOT / "pfpcli", ROOT / "tests"

#: The longest file and the longest function of the package, in lines.
LONGEST_FILE, LONGEST_FUNCTION = 350, 60


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_imports_keep_the_contracts_of_pyproject() -> None:
    call = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_logo=True, no_cache=True))"
    done = subprocess.run([sys.executable, "-c", call], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_says_in_its_docstring_what_it_does() -> None:
    silent = []
    for path in PACKAGE.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if len(text.splitlines()) < 2 or "TODO" in text:
            silent.append(shown(path))
    assert not silent, silent


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lines = {shown(path): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    long = {path: count for path, count in lines.items() if count > LONGEST_FILE}
    assert not long, long


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {f"{shown(path)}:{node.name}": length(node) for path in modules() for node in functions(path)}
    long = {name: count for name, count in lengths.items() if count > LONGEST_FUNCTION}
    assert not long, long


def test_every_package_has_a_folder_of_tests() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.parent.name for path in TESTS.glob("*/test_*.py")}
    assert folders - {"docs", "attack"} == packages


def test_tests_beside_the_folders_are_of_modules_beside_the_packages() -> None:
    modules_tested = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")}
    assert modules_tested - {"house"} <= {path.stem for path in PACKAGE.glob("*.py")}
