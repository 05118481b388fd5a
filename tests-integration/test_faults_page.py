"""The page that maps each kind of fault to its test says what is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "faults.md"
ROW = re.compile(r"^\| (?P<kind>[^|]+) \| (?P<tests>[^|]+) \| (?P<size>default|stress) \|$")
TEST = re.compile(r"`([^`]+)::([^`]+)`")


def rows() -> list[tuple[str, str, str]]:
    """Each test of the table, with its file and its size."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        if row := ROW.match(line):
            tests = TEST.findall(row["tests"])
            assert tests, f"a row without a test: {line}"
            found += [(file, name, row["size"]) for file, name in tests]
        else:
            assert not line.startswith("|") or line.startswith(("| ---", "| kind of fault |")), f"not a row: {line}"
    return found


def is_stress(decorators: list[ast.expr]) -> bool:
    return any(ast.unparse(each).startswith("pytest.mark.stress") for each in decorators)


def tests_in(file: Path) -> dict[str, bool]:
    """The tests of a file, `Class::name` for those of a class, and whether the default run leaves them out."""
    tree = ast.parse(file.read_text("utf-8"))
    marks = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    whole = any("pytest.mark.stress" in ast.unparse(mark.value) for mark in marks)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = whole or is_stress(node.decorator_list)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = of_class = whole or is_stress(node.decorator_list)
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[f"{node.name}::{method.name}"] = of_class or is_stress(method.decorator_list)
    return found


def test_the_page_has_rows():
    assert len(rows()) > 80


@pytest.mark.parametrize("file", sorted({file for file, _, _ in rows()}))
def test_each_test_of_the_page_is_there_and_runs_when_it_says(file: str):
    there = tests_in(ROOT / file)
    for _, name, size in [row for row in rows() if row[0] == file]:
        assert name in there, f"{file} has no test {name}"
        assert there[name] == (size == "stress"), f"{file}::{name} is in the table as {size}"
