"""The page that maps each kind of fault to its test says what is true."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "faults.md"
ROW = re.compile(r"^\| (?P<kind>[^|]+) \| (?P<tests>[^|]+) \| (?P<size>default|stress) \|$")
TEST = re.compile(r"`([^`:]+\.py)(?:::([^`]+))?`")


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


def sizes_of(node: ast.AST, of_all_in_it: set[str]) -> set[str]:
    """In which runs a test is: with all of its parameters in one, or with some of them in the other."""
    decorators = [ast.unparse(each) for each in getattr(node, "decorator_list", [])]
    if "pytest.mark.stress" in decorators:
        return {"stress"}
    return of_all_in_it | ({"stress"} if any("pytest.mark.stress" in each for each in decorators) else set())


def found_in(file: Path) -> dict[str, set[str]]:
    """The tests of a file, `Class::name` for those of a class, and in which runs they are."""
    tree = ast.parse(file.read_text("utf-8"))
    marks = [
        node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    whole = {"stress"} if any("pytest.mark.stress" in ast.unparse(mark.value) for mark in marks) else {"default"}
    found = {"": whole}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = sizes_of(node, whole)
        elif isinstance(node, ast.ClassDef):
            found[node.name] = of_class = sizes_of(node, whole)
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[f"{node.name}::{method.name}"] = sizes_of(method, of_class)
    return found


def test_the_page_has_rows():
    assert len(rows()) > 80


@pytest.mark.parametrize("file", sorted({file for file, _, _ in rows()}))
def test_each_test_of_the_page_is_there_and_runs_when_it_says(file: str):
    there = found_in(ROOT / file)
    for _, name, size in [row for row in rows() if row[0] == file]:
        assert name in there, f"{file} has no test {name}"
        assert size in there[name], f"{file}::{name} is in the table as {size}, and runs in: {', '.join(there[name])}"
