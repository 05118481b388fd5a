"""Reads every module of this Python's standard library, and tells which functions are the most complex.

::

    find_modules ---> measure (a run for each file) ---> add_up (a run for each package) ---> the report

The report is byte for byte the same on every task runner. A file that cannot be read or parsed is counted, named and
skipped; the standard library has some, on purpose, for its own tests.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from riverrun import flow, task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from riverrun import TaskFuture

SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages"}
PARSED_AS = "<census>"
"""The file name that the parser gets, so that its warnings can be told from all others."""

BLOCKS = {ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.TryStar, ast.Match}
BRANCHES = {ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.match_case, ast.comprehension}
LEAVES = {ast.Name, ast.Constant, ast.Load, ast.Store}


@dataclass
class Function:
    """What is measured of one function; a function inside it is measured by itself."""

    file: str
    line: int
    name: str
    lines: int
    branches: int = 0
    nesting: int = 0

    def rank(self) -> tuple[int, int, str, int]:
        """Give the key to sort by: the most branches first, and never a tie."""
        return -self.branches, -self.lines, self.file, self.line


class Measures(NamedTuple):
    """What is measured of a file, or of several files together."""

    name: str
    files: int = 1
    lines: int = 0
    classes: int = 0
    functions: int = 0
    branches: int = 0
    nesting: int = 0
    longest: int = 0
    top: tuple[Function, ...] = ()
    skipped: tuple[str, ...] = ()


@task
def find_modules(root: str) -> list[str]:
    """Give the paths of the modules below a folder, relative to it and in order."""
    if not Path(root).is_dir():
        raise NotADirectoryError(f"There is no folder {root!r} to take the census of.")
    found: list[str] = []

    def unreadable(error: OSError) -> None:
        found.append(error.filename)  # a folder; reading it as a file fails, and so it is named with the others

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        found += [str(Path(folder, name)) for name in files if name.endswith(".py")]
    return sorted(Path(path).relative_to(root).as_posix() for path in found)


@task
def measure(root: str, file: str, top: int) -> Measures:
    """Read, parse and measure one module."""
    ignore_warnings_of_the_parser()
    try:
        source = Path(root, file).read_bytes()
        tree = parse(source)
    except OSError as error:
        return Measures(file, skipped=(f"{file}: {type(error).__name__}: {error.strerror}",))
    except SyntaxError as error:
        return Measures(file, skipped=(f"{file}: {type(error).__name__}: {error.msg}, line {error.lineno or 1}",))
    except (ValueError, RecursionError, MemoryError, SystemError) as error:  # a null byte, say, or brackets too deep
        return Measures(file, skipped=(f"{file}: {type(error).__name__}: {error}",))
    outside, functions, classes = walk(tree, file)
    return Measures(
        file,
        lines=source.count(b"\n") + (source[-1:] not in {b"", b"\n"}),
        classes=classes,
        functions=len(functions),
        branches=sum(function.branches for function in [outside, *functions]),
        nesting=max(function.nesting for function in [outside, *functions]),
        longest=max((function.lines for function in functions), default=0),
        top=tuple(sorted(functions, key=Function.rank)[:top]),
    )


@task
def add_up(name: str, parts: list[Measures], top: int) -> Measures:
    """Take the measures of several files, or packages, together."""
    return Measures(
        name,
        files=sum(part.files for part in parts),
        lines=sum(part.lines for part in parts),
        classes=sum(part.classes for part in parts),
        functions=sum(part.functions for part in parts),
        branches=sum(part.branches for part in parts),
        nesting=max(part.nesting for part in parts),
        longest=max(part.longest for part in parts),
        top=tuple(sorted((function for part in parts for function in part.top), key=Function.rank)[:top]),
        skipped=tuple(sorted(file for part in parts for file in part.skipped)),
    )


@flow
def census(root: str | None = None, top: int = 100) -> None:
    """Take the census, and print it.

    Args:
        root: the folder to read; by default the standard library of the Python that runs this.
        top: how many of the most complex functions to list.
    """
    if top < 1:
        raise ValueError(f"top must be 1 or more, not {top}: it is how many functions to list.")
    ignore_warnings_of_the_parser()  # before there are threads; on workers elsewhere, `measure` does it
    folder = root or sysconfig.get_path("stdlib")
    files = find_modules(folder).result()
    print(f"Reading {len(files):,} files...", flush=True)
    modules: dict[str, list[TaskFuture[Measures]]] = {}
    for file in files:
        package, slash, _ = file.partition("/")
        modules.setdefault(package if slash else "(single modules)", []).append(measure(folder, file, top))
    packages = [add_up(package, measures, top) for package, measures in modules.items()]
    if packages:
        everything = add_up("all", packages, top)
        print(report([package.result() for package in packages], everything.result()))


def ignore_warnings_of_the_parser() -> None:
    """Keep quiet about, say, an invalid escape in a file that is only measured.

    The filter stays: `warnings.catch_warnings()` puts all filters back, also those that another thread needs just now.
    """
    if ("ignore", None, Warning, re.compile(PARSED_AS), 0) not in warnings.filters:
        warnings.filterwarnings("ignore", module=PARSED_AS)


def parse(source: bytes) -> ast.Module:
    """Parse a module.

    Several releases of Python say `SystemError: AST constructor recursion depth mismatch` of a file in good order, if
    another thread parses at the wrong moment (https://github.com/python/cpython/issues/106905). Trying again helps.
    """
    for _ in range(9):
        with suppress(SystemError):
            return ast.parse(source, PARSED_AS)
    return ast.parse(source, PARSED_AS)


def walk(tree: ast.Module, file: str) -> tuple[Function, list[Function], int]:
    """Measure a syntax tree: the code outside of functions, the functions, the number of classes.

    It keeps a stack of its own, so that no file can be too deep for the thread that it happens to be measured in.
    """
    outside = Function(file, 1, "", 0)
    functions: list[Function] = []
    classes = 0
    todo: list[tuple[list[ast.AST], Function, str, int]] = [(children(tree), outside, "", 0)]
    while todo:
        nodes, function, prefix, depth = todo.pop()
        function.nesting = max(function.nesting, depth)
        while nodes:
            node = nodes.pop()
            below = children(node)
            function.branches += branches_at(node)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Function(file, node.lineno, prefix + node.name, lines))
                todo.append((below, functions[-1], f"{prefix}{node.name}.", 0))
            elif isinstance(node, ast.ClassDef):
                classes += 1
                todo.append((below, function, f"{prefix}{node.name}.", depth))
            elif type(node) in BLOCKS:
                if isinstance(node, ast.If) and has_elif(node):
                    nodes.append(below.pop())  # it is no deeper than its `if`
                todo.append((below, function, prefix, depth + 1))
            else:
                nodes += below
    return outside, functions, classes


def children(node: ast.AST) -> list[ast.AST]:
    """Give the nodes below a node, in order, less those that have nothing to count in them."""
    found: list[object] = []
    for field in node._fields:
        value = getattr(node, field, None)
        found += value if isinstance(value, list) else (value,)
    return [child for child in found if isinstance(child, ast.AST) and type(child) not in LEAVES]


def branches_at(node: ast.AST) -> int:
    """Count the ways that one node adds to those through its function."""
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return int(type(node) in BRANCHES)


def has_elif(node: ast.If) -> bool:
    """Tell an `elif` from an `if` below `else`: in the tree they differ by their columns only."""
    return len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If) and node.orelse[0].col_offset == node.col_offset


def report(packages: list[Measures], everything: Measures) -> str:
    """Write the report."""
    functions = [(f.branches, f.lines, f.nesting, f.name, f"{f.file}:{f.line}") for f in everything.top]
    totals = [measures[: Measures._fields.index("top")] for measures in [*sorted(packages), everything]]
    lines = [
        *("", f"The {len(functions)} most complex functions", ""),
        *table(("branches", "lines", "nesting", "function", "where"), functions),
        *("", "Totals by package", ""),
        *table(("package", "files", "lines", "classes", "functions", "branches", "nesting", "longest"), totals),
        *("", f"{len(everything.skipped)} of {everything.files:,} files could not be measured", ""),
        *map(plain, everything.skipped),
    ]
    return "\n".join(lines)


def table(heads: tuple[str, ...], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lay out a table: numbers to the right, text to the left."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else plain(str(cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    sides = [">" if rows and isinstance(cell, int) else "<" for cell in (rows[0] if rows else heads)]
    lines = [zip(row, sides, widths, strict=True) for row in [heads, *cells]]
    return ["  ".join(f"{text:{side}{width}}" for text, side, width in line).rstrip() for line in lines]


def plain(text: str) -> str:
    """Write a text in ASCII, which terminals and pipes of every encoding take."""
    return text.encode("ascii", "backslashreplace").decode()


if __name__ == "__main__":
    census()
