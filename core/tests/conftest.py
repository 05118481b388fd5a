"""What tests share: the runners and event loops they run on, and distributions made on the fly.

Such a distribution is real metadata on `sys.path`, which importlib-metadata reads as it reads any other.
"""

from __future__ import annotations

import os
import sys
import threading
from textwrap import dedent
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path


class Install(Protocol):
    def __call__(
        self,
        distribution: str,
        runners: dict[str, str],
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
        group: str = "riverrun.task_runners",
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
    """Install a distribution whose entry points name task runners, or others, for the time of a test."""
    folders: list[Path] = []

    def install(
        distribution: str,
        runners: dict[str, str],
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
        group: str = "riverrun.task_runners",
    ) -> Path:
        folder = tmp_path / f"site-{len(folders)}"
        metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        metadata.mkdir(parents=True)
        folders.append(folder)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        lines = [f"{name} = {value}" for name, value in runners.items()]
        (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
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


@pytest.fixture(params=["sequential", "concurrent"])
def task_runner(request: pytest.FixtureRequest) -> str:
    """Give the name of each of the two runners that are always there: what a flow means depends on neither."""
    return str(request.param)


class RunAsync(Protocol):
    def __call__(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any: ...


@pytest.fixture(params=["asyncio", "trio"])
def run_async(request: pytest.FixtureRequest) -> RunAsync:
    """Give a function that runs a coroutine function to its end, on each of the two event loops."""

    def run_async(function: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
        return anyio.run(function, *args, backend=request.param)

    return run_async


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no environment variable of the person who runs the tests decide what a flow does."""
    for variable in [name for name in os.environ if name.startswith("RIVERRUN_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def no_thread_left_behind() -> Iterator[None]:
    """Fail a test after which a thread of a flow is still there: what a flow run starts ends with it."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("riverrun-"):
            thread.join(30)
            assert not thread.is_alive(), f"thread {thread.name!r} is still there"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


class Command(Protocol):
    def __call__(self, *words: str) -> Ended: ...


@pytest.fixture
def command(
    bare_settings: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Command]:
    """Give the command line, to be called with words, in an empty folder; what it imports is forgotten afterwards."""
    from riverrun._cli import main

    monkeypatch.setattr(sys, "path", [*sys.path])
    modules = set(sys.modules)

    def command(*words: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            main([*words], prog_name="riverrun")
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    yield command
    for name in set(sys.modules) - modules:
        if str(bare_settings) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


class Write(Protocol):
    def __call__(self, path: str, source: str) -> Path: ...


@pytest.fixture
def write(bare_settings: Path) -> Write:
    """Give a function that writes a file of source into the working directory."""

    def write(path: str, source: str) -> Path:
        file = bare_settings / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source), encoding="utf-8")
        return file

    return write
