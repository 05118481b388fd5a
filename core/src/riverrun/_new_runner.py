"""`riverrun new-runner NAME`: the package of a task runner, written into a new folder, whole or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from importlib import resources
from string import Template

from riverrun._executor_class import ExecutorClass, ExecutorClassError, examine
from riverrun._offers import OURS, is_importable, normalized, scan, version_of
from riverrun.abc import API_VERSION

_FILES = {
    ".github/workflows/tests.yml": "workflow.yml.template",
    ".gitignore": "gitignore.template",
    "LICENSE": "LICENSE.template",
    "README.md": "README.md.template",
    "pyproject.toml": "pyproject.toml.template",
    "src/{package}/__init__.py": "init.py.template",
    "src/{package}/_runner.py": "runner.py.template",
    "src/{package}/py.typed": None,
    "tests/test_conformance.py": "test_conformance.py.template",
    "tests/test_discovery.py": "test_discovery.py.template",
}
_VALID = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class NewRunnerError(Exception):
    """Nothing was written; the text says why, and what to type."""


def write_package(typed: str, executor: str) -> str:
    """Write the package of a task runner into the working directory.

    Args:
        typed: the name of the runner (`slurm`), or of its distribution (`runner-slurm`).
        executor: the dotted path of the class whose objects run the tasks.

    Returns:
        What to say about it.

    Raises:
        NewRunnerError: the name is taken or not possible, the folder exists, or the class is no executor.
    """
    name = typed.removeprefix("runner-")
    _check_name(typed, name)
    folder = f"runner-{name}"
    if os.path.lexists(folder):
        raise NewRunnerError(f"`{folder}` exists here. Choose another name, or go to another folder.")
    try:
        found = examine(executor)
    except ExecutorClassError as error:
        raise NewRunnerError(str(error)) from None
    try:
        _write(folder, _values(name, found))
    except OSError as error:
        raise NewRunnerError(f"`{folder}` cannot be written: {error.strerror or error}.") from None
    steps = f'cd {folder}\n  pip install -e ".[test]"\n  pytest\n  riverrun runners'
    unknown = ""
    if not found.in_standard_library and not found.distributions:
        project = f"{folder}/pyproject.toml"
        unknown = f"\nWhat `{found.module}` is installed from is not known: add it to the dependencies in {project}."
    return f"Wrote {folder}, a package whose task runner is `{name}`. Next:\n  {steps}{unknown}"


def _check_name(typed: str, name: str) -> None:
    if not _VALID.fullmatch(name):
        near = "-".join(re.findall(r"[a-z0-9]+", name.lower())).lstrip("0123456789-")
        hint = f": riverrun new-runner {near}" if near else "."
        raise NewRunnerError(
            f"`{typed}` cannot be the name of a task runner. "
            f"Type lower-case letters and digits, with `-` between words{hint}"
        )
    if name in OURS:
        raise NewRunnerError(f"The name `{name}` belongs to Riverrun ({OURS[name].distribution}). Choose another.")
    for offer in scan(warn=False):
        if name == offer.name or f"runner-{name}" == normalized(offer.distribution):
            raise NewRunnerError(
                f"The name `{name}` is taken: {offer} has a task runner `{offer.name}`. Choose another."
            )
    package = _package(name)
    if is_importable(OURS["dask"]._replace(value=package)):
        raise NewRunnerError(f"The name `{name}` is taken: there is a package `{package}` already. Choose another.")


def _package(name: str) -> str:
    return f"runner_{name.replace('-', '_')}"


def _values(name: str, executor: ExecutorClass) -> dict[str, str]:
    """Give what the templates need."""
    needed = [
        f'"core{_compatible(version_of("core"))}"',
        *(f'"{distribution}"' for distribution in executor.distributions),
    ]
    return {
        "name": name,
        "distribution": f"runner-{name}",
        "package": _package(name),
        "class_name": "".join(part.capitalize() for part in name.split("-")) + "TaskRunner",
        "executor": f"{executor.module}.{executor.name}",
        "executor_name": executor.name,
        "dependencies": ", ".join(needed),
        "imports": _imports(executor),
        "year": time.strftime("%Y"),
        "api_version": str(API_VERSION),
        **executor.fragments(),
    }


def _imports(executor: ExecutorClass) -> str:
    standard = ["from typing import ClassVar"]
    others = ["from riverrun.abc import Concurrency, ExecutorTaskRunner"]
    (standard if executor.in_standard_library else others).append(f"from {executor.module} import {executor.name}")
    if executor.needs_context:
        standard.append("from multiprocessing import get_context")
    return "\n".join([*sorted(standard), "", *sorted(others)])


def _compatible(version: str) -> str:
    """Give the range of versions that keep what the installed one promises; before 1.0 each minor may break it."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if not numbers:
        return ""  # from a source tree, without metadata
    major, minor = int(numbers[1]), int(numbers[2])
    return f">={major}.{minor},<{major + 1}" if major else f">=0.{minor},<0.{minor + 1}"


def _write(folder: str, values: dict[str, str]) -> None:
    templates = resources.files("riverrun") / "_templates" / "runner"
    # In a folder of its own beside the target: a rename is all or nothing, and only within one file system.
    temporary = tempfile.mkdtemp(prefix=f".{folder}-", dir=".")
    try:
        made = os.path.join(temporary, folder)
        for path, template in _FILES.items():
            target = os.path.join(made, *path.format(**values).split("/"))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            text = "" if template is None else Template((templates / template).read_text("utf-8")).substitute(values)
            with open(target, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
        os.rename(made, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
