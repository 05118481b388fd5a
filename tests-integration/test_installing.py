"""What people type to install it, typed: with pip and with uv, into an empty environment, from a folder of wheels.

No index is in reach, because `core` on a public one is another project, and `--find-links` only adds a place to look:
the variables `PIP_NO_INDEX` and `UV_NO_INDEX` switch it off, so that the commands are those that people type. The
folder has to have everything then: `nox -s integration` fetches the dependencies, and names it in `WHEELHOUSE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

WHEELHOUSE = os.environ.get("WHEELHOUSE", "")
FLOW = """\
import os

from riverrun import flow, task


@task(log_prints=True)
def double(n: int) -> int:
    print(f"doubled: {n}")
    return 2 * n


@task
def where() -> int:
    return os.getpid()


@flow(task_runner="dask")
def doubles(n: int = 3) -> None:
    print(sum(double.map(range(n)).result()), where().result() != os.getpid())


if __name__ == "__main__":
    doubles()
"""
CLASSES = {
    "sequential": "SequentialTaskRunner",
    "concurrent": "ConcurrentTaskRunner",
    "dask": "DaskTaskRunner",
    "ray": "RayTaskRunner",
}

pytestmark = [
    pytest.mark.skipif(not WHEELHOUSE, reason="`nox -s integration` makes the folder of wheels, and names it"),
    pytest.mark.timeout(300),  # an environment is made, and pip runs in it
]
with_ray = pytest.mark.skipif(
    not [*Path(WHEELHOUSE or os.devnull).glob("runner_ray-*.whl")], reason="no wheel of runner-ray is built yet"
)


def execute(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    hidden = ("RIVERRUN_", "PIP_", "UV_", "PYTHON", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        command, cwd=folder, env=clean | variables, capture_output=True, text=True, timeout=200, check=False
    )


class Installed(NamedTuple):
    """An environment of its own into which something was installed."""

    python: Path
    folder: Path
    told: str
    """What the installer wrote on stderr."""

    def script(self) -> subprocess.CompletedProcess[str]:
        return execute(str(self.python), "doubling.py", folder=self.folder)

    def riverrun(self, *words: str) -> subprocess.CompletedProcess[str]:
        return execute(str(self.python.with_name("riverrun")), *words, folder=self.folder)

    def runs_on(self, runner: str) -> None:
        done = self.riverrun("run", "doubling.py:doubles", "-p", "n=4", "--runner", runner)
        elsewhere = runner in {"dask", "ray"}
        assert (done.returncode, done.stdout) == (0, f"12 {elsewhere}\n"), done.stderr
        assert f"Starting task runner `{CLASSES[runner]}`..." in done.stderr
        assert done.stderr.count(" - doubled: ") == 4

    def lacks(self, runner: str) -> None:
        done = self.riverrun("run", "doubling.py:doubles", "--runner", runner)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"Error: The task runner `{runner}` is not installed. To install it: pip install 'core[{runner}]'\n"
        )
        package = f"runner_{runner}"
        for absent in (runner, package):
            found = execute(str(self.python), "-c", f"import {absent}", folder=self.folder)
            assert f"No module named '{absent}'" in found.stderr

    def can_use(self) -> list[str]:
        listed = self.riverrun("runners")
        assert listed.returncode == 0, listed.stderr
        rows = [line.split() for line in listed.stdout.splitlines()[1:]]
        return [row[0] for row in rows if row[4:] in (["sequential"], ["concurrent"], ["parallel"])]


class Install(Protocol):
    def __call__(self, what: str) -> Installed: ...


@pytest.fixture(params=["pip", "uv"])
def install(request: pytest.FixtureRequest, tmp_path: Path) -> Install:
    """Give a function that installs something into an environment of its own, with pip or with uv."""

    def install(what: str) -> Installed:
        venv.create(tmp_path / "environment", with_pip=request.param == "pip")
        python = tmp_path / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        if request.param == "pip":
            installer = [str(python), "-m", "pip"]
            variables = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        else:
            # Not `python -m uv`, which sets VIRTUAL_ENV to the environment of the tests.
            installer = [str(Path(sys.executable).with_name("uv")), "pip"]
            variables = {"UV_NO_INDEX": "1", "UV_NO_CONFIG": "1", "VIRTUAL_ENV": str(tmp_path / "environment")}
            variables["UV_CACHE_DIR"] = str(tmp_path / "cache")  # on the same disk, so that uv links and does not copy
        done = execute(*installer, "install", "--find-links", WHEELHOUSE, what, folder=tmp_path, **variables)
        assert done.returncode == 0, done.stderr
        (tmp_path / "doubling.py").write_text(FLOW)
        return Installed(python, tmp_path, done.stderr)

    return install


def test_core_alone_runs_on_its_two_runners_and_says_what_to_install_for_the_others(install: Install):
    installed = install("core")
    assert installed.can_use() == ["sequential", "concurrent"]
    for runner in installed.can_use():
        installed.runs_on(runner)
    for runner in ("dask", "ray"):
        installed.lacks(runner)
    script = installed.script()
    assert script.returncode == 1
    assert script.stderr.splitlines()[-1].endswith(
        "TaskRunnerNotInstalled: The task runner `dask` is not installed. To install it: pip install 'core[dask]'"
    )


def test_core_with_dask_runs_a_flow_on_dask(install: Install):
    installed = install("core[dask]")
    assert installed.can_use() == ["sequential", "concurrent", "dask"]
    installed.runs_on("dask")
    script = installed.script()
    assert (script.returncode, script.stdout) == (0, "6 True\n"), script.stderr
    assert "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`" in script.stderr
    assert script.stderr.count(" - doubled: ") == 3
    installed.lacks("ray")


@with_ray
def test_core_with_ray_runs_a_flow_on_ray(install: Install):
    installed = install("core[ray]")
    assert installed.can_use() == ["sequential", "concurrent", "ray"]
    installed.runs_on("ray")
    installed.lacks("dask")


@with_ray
def test_core_with_all_runs_a_flow_on_each(install: Install):
    installed = install("core[all]")
    assert installed.can_use() == ["sequential", "concurrent", "dask", "ray"]
    for runner in installed.can_use():
        installed.runs_on(runner)


def test_an_extra_that_does_not_exist_is_a_warning_first_and_a_clear_error_when_its_runner_is_asked_for(
    install: Install,
):
    installed = install("core[dsk]")
    assert "core" in installed.told
    assert "does not" in installed.told
    assert "dsk" in installed.told
    assert installed.can_use() == ["sequential", "concurrent"]
    # What was meant is told with the line that installs it, and what was typed with what is near.
    installed.lacks("dask")
    typo = installed.riverrun("run", "doubling.py:doubles", "--runner", "dsk")
    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr == (
        "Error: No task runner is named `dsk`; did you mean `dask`? Installed: concurrent, sequential. "
        "Not installed: dask (pip install 'core[dask]'), ray (pip install 'core[ray]').\n"
    )
