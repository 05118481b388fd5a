"""Wheels made on the fly, and fresh environments to install them into, with the real uv and, where it counts, pip.

::

    wheel(...)       a wheel file, as a build back-end writes it
    environment      a new virtual environment, on top of the one that runs the tests: Riverrun and its
        .install()   dependencies are seen through a .pth file, so that a test installs its plugins and nothing else;
                     with uv, which takes a tenth of the time
        .pip()       for what people do with pip: install in place what they work on, and uninstall
        .run()       the command `riverrun` in it
        .start_up()  what a process with a small flow imports and opens, to be compared with that of a clean one
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 110
"""How long one command may take, in seconds: a limit against hangs, a little below that of the whole test."""
UV = str(Path(sys.executable).with_name("uv"))

RUNNER = """
    from concurrent.futures import ThreadPoolExecutor

    from riverrun.abc import Concurrency, TaskRunner

    class {name}(TaskRunner):
        concurrency = Concurrency.CONCURRENT
        {body}

        def start(self):
            return ThreadPoolExecutor(2)
"""
FLOW = """
    from riverrun import flow, task

    @task
    def hello(name):
        return f"Hello, {name}!"

    @flow
    def hello_flow(name: str = "you"):
        print(hello(name).result())
"""
START_UP = """
    import json
    import sys

    touched = []
    sys.addaudithook(lambda event, about: touched.append(about[0]) if event in ("open", "os.listdir") else None)

    from riverrun import flow, task

    @task
    def hello():
        return "Hello!"

    @flow(task_runner="sequential")
    def hello_flow():
        return hello()

    before = set(sys.modules)
    assert hello_flow() == "Hello!"
    touched = [str(path).replace(sys.prefix, "") for path in touched]
    print(json.dumps({"modules": list(sys.modules), "touched": touched}))
"""


class MakeWheel(Protocol):
    def __call__(
        self,
        distribution: str,
        runners: dict[str, str] | None = None,
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
    ) -> Path: ...


@pytest.fixture
def wheel(tmp_path: Path) -> MakeWheel:
    """Give a function that writes a wheel, with its sources and with entry points that name task runners."""

    def wheel(
        distribution: str,
        runners: dict[str, str] | None = None,
        modules: dict[str, str] | None = None,
        *,
        version: str = "1.0",
    ) -> Path:
        stem = f"{distribution.replace('-', '_')}-{version}"
        files = {f"{module}.py": dedent(source) for module, source in (modules or {}).items()}
        about = f"{stem}.dist-info"
        files[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        lines = [f"{name} = {value}" for name, value in (runners or {}).items()]
        group = "riverrun.task_runners" if lines else "console_scripts"
        files[f"{about}/entry_points.txt"] = "\n".join([f"[{group}]", *lines, ""])
        record = [f"{path},{_digest(text)},{len(text.encode())}" for path, text in files.items()]
        files[f"{about}/RECORD"] = "\n".join([*record, f"{about}/RECORD,,", ""])
        path = tmp_path / "wheels" / f"{stem}-py3-none-any.whl"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                archive.writestr(name, text)
        return path

    return wheel


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


class Row(NamedTuple):
    """A line of `riverrun runners`."""

    name: str
    class_path: str
    distribution: str
    version: str
    concurrency: str
    problem: str


class StartUp(NamedTuple):
    """What a process with a small flow on a runner of ours did."""

    modules: list[str]
    """What it imported, in order."""
    touched: list[str]
    """Files it opened and folders it listed, in order, without the folder of the environment."""


class Environment:
    """A virtual environment in which Riverrun is installed."""

    def __init__(self, folder: Path) -> None:
        """Make one.

        Args:
            folder: where to; the working directory of its commands is beside it.
        """
        venv.create(folder, symlinks=os.name != "nt")
        scheme = {"base": str(folder), "platbase": str(folder)}
        self.site_packages = Path(sysconfig.get_path("purelib", "venv", scheme))
        self.python = Path(sysconfig.get_path("scripts", "venv", scheme)) / "python"
        self.work = folder.parent / "work"
        self.work.mkdir(exist_ok=True)
        (self.work / "hello.py").write_text(dedent(FLOW))
        (self.work / "start_up.py").write_text(dedent(START_UP))
        # `addsitedir`, not only the path: what is installed there may have .pth files of its own.
        below = sysconfig.get_path("purelib")
        (self.site_packages / "below.pth").write_text(f"import site; site.addsitedir({below!r})\n")

    def execute(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run its Python to the end."""
        return self._run(str(self.python), *command, **variables)

    def _run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with no settings of the person who runs the tests."""
        hidden = ("RIVERRUN_", "PIP_", "UV_", "VIRTUAL_ENV", "PYTHON")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        kept = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            command,
            cwd=self.work,
            env=clean | kept | variables,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def pip(self, *arguments: str) -> None:
        """Run pip, which has to succeed."""
        done = self.execute("-m", "pip", "--quiet", *arguments)
        assert done.returncode == 0, done.stderr

    def install(self, *what: str | Path) -> None:
        """Install wheels, by path."""
        offline = ("--no-config", "--no-cache", "--no-index", "--no-deps")
        done = self._run(UV, "pip", "install", "--quiet", "--python", str(self.python), *offline, *map(str, what))
        assert done.returncode == 0, done.stderr

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the command `riverrun`."""
        return self.execute("-W", "error", "-m", "riverrun", *words, **variables)

    def hello(self, runner: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a flow on the task runner of this name."""
        return self.run("--log-level", "WARNING", "run", "hello.py", "-p", "name=Ada", "--runner", runner, **variables)

    def runs_on(self, runner: str, **variables: str) -> None:
        """Fail unless a flow runs on the task runner of this name, without a word on stderr."""
        done = self.hello(runner, **variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "Hello, Ada!\n", "")

    def listed(self, name: str, **variables: str) -> list[Row]:
        """Give the lines that `riverrun runners` has for a name; its status is 0 whatever they say."""
        done = self.run("runners", **variables)
        assert (done.returncode, done.stderr) == (0, "")
        header, *lines = done.stdout.splitlines()
        # A column in which no line has anything is left out.
        titles = {field: field.replace("class_path", "class").upper() for field in Row._fields}
        shown = [field for field in Row._fields if titles[field] in header.split()]
        starts = [header.index(titles[field]) for field in shown]
        columns = [slice(*ends) for ends in zip(starts, [*starts[1:], None], strict=True)]
        nothing = Row(*[""] * len(Row._fields))
        rows = [
            nothing._replace(**{field: line[column].strip() for field, column in zip(shown, columns, strict=True)})
            for line in lines
        ]
        return [row for row in rows if row.name == name]

    def start_up(self) -> StartUp:
        """Run a small flow on a runner of ours, and tell what it took."""
        done = self.execute("-W", "error", "start_up.py", RIVERRUN_LOG_LEVEL="WARNING")
        assert (done.returncode, done.stderr) == (0, "")
        return StartUp(**json.loads(done.stdout))


@pytest.fixture(scope="session")
def clean_start_up(tmp_path_factory: pytest.TempPathFactory) -> StartUp:
    """Tell what a small flow takes where nothing by other people is installed."""
    return Environment(tmp_path_factory.mktemp("clean") / "environment").start_up()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Give an environment with Riverrun, and nothing by other people."""
    return Environment(tmp_path / "environment")


@pytest.fixture
def good(wheel: MakeWheel) -> Path:
    """Give the wheel of a plugin with nothing wrong: the task runner `good` of `runner-good` 1.0."""
    source = RUNNER.format(name="GoodTaskRunner", body="")
    return wheel("runner-good", {"good": "runner_good:GoodTaskRunner"}, {"runner_good": source})


@pytest.fixture
def runner_source() -> Callable[..., str]:
    """Give a function that writes the source of a module with a task runner that works."""

    def runner_source(name: str, body: str = "") -> str:
        return RUNNER.format(name=name, body=body)

    return runner_source
