"""Distributions made on the fly: real metadata on `sys.path`, which importlib-metadata reads as it reads any other."""

from __future__ import annotations

import os
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Install(Protocol):
    def __call__(
        self, distribution: str, runners: dict[str, str], modules: dict[str, str] | None = None, *, version: str = "1.0"
    ) -> Path: ...


@pytest.fixture
def bare_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Let no setting of the person who runs the tests be seen; give the working directory."""
    for variable in [name for name in os.environ if name.startswith("RIVERRUN_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Install]:
    """Install a distribution whose entry points name task runners, for the time of a test."""
    folders: list[Path] = []

    def install(
        distribution: str, runners: dict[str, str], modules: dict[str, str] | None = None, *, version: str = "1.0"
    ) -> Path:
        folder = tmp_path / f"site-{len(folders)}"
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        folders.append(folder)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in runners.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[riverrun.task_runners]", *lines, ""]))
        for module, source in (modules or {}).items():
            monkeypatch.delitem(sys.modules, module, raising=False)
            (folder / f"{module}.py").write_text(dedent(source))
        monkeypatch.syspath_prepend(folder)
        return folder

    yield install
    for name, module in list(sys.modules.items()):
        if any(str(folder) in (getattr(module, "__file__", None) or "") for folder in folders):
            del sys.modules[name]


def _runner_source(name: str, body: str = "") -> str:
    return dedent(f"""
        from __future__ import annotations
        from typing import Any, ClassVar
        from riverrun.abc import Concurrency, TaskRunner

        class {name}(TaskRunner):
            concurrency = Concurrency.CONCURRENT
            {body or "pass"}

            def start(self):
                raise NotImplementedError
    """)


class RunnerSource(Protocol):
    def __call__(self, name: str, body: str = "") -> str: ...


@pytest.fixture
def runner_source() -> RunnerSource:
    """Give the source of a module with a task runner class."""
    return _runner_source
