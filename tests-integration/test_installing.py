"""What people type to install it, typed: into an empty environment, from a folder of wheels, with no index in reach.

No index, because `core` on a public one is another project, and pip takes the higher version of the two. The folder has
to have everything then: `nox -s integration` fetches the dependencies into it, and names it in `WHEELHOUSE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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

pytestmark = [
    pytest.mark.skipif(not WHEELHOUSE, reason="`nox -s integration` makes the folder of wheels, and names it"),
    pytest.mark.timeout(300),  # an environment is made, and pip runs in it
]


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    hidden = ("RIVERRUN_", "PIP_", "PYTHON")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        command, cwd=folder, env=clean | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}, capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


@pytest.fixture
def install(tmp_path: Path) -> Callable[[str], Path]:
    """Install something into an environment of its own, which has a pip and nothing else; give its Python."""

    def install(what: str) -> Path:
        venv.create(tmp_path / "environment", with_pip=True)
        python = tmp_path / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        done = run(
            str(python), "-m", "pip", "install", "--quiet", "--no-index", "--find-links", WHEELHOUSE, what,
            folder=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return python

    return install


def test_core_with_dask_runs_a_flow_on_dask(install: Callable[[str], Path], tmp_path: Path):
    python = install("core[dask]")
    (tmp_path / "doubling.py").write_text(FLOW)
    script = run(str(python), "doubling.py", folder=tmp_path)
    assert (script.returncode, script.stdout) == (0, "6 True\n"), script.stderr
    assert "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`" in script.stderr
    assert script.stderr.count(" - doubled: ") == 3
    command = run(str(python.with_name("riverrun")), "run", "doubling.py:doubles", "-p", "n=4", folder=tmp_path)
    assert (command.returncode, command.stdout) == (0, "12 True\n"), command.stderr
    listed = run(str(python.with_name("riverrun")), "runners", folder=tmp_path)
    (row,) = [line.split() for line in listed.stdout.splitlines() if line.startswith("dask ")]
    assert row == ["dask", "runner_dask:DaskTaskRunner", "runner-dask", "0.1.0", "parallel"]


def test_core_with_ray_runs_a_flow_on_ray(install: Callable[[str], Path], tmp_path: Path):
    python = install("core[ray]")
    (tmp_path / "doubling.py").write_text(FLOW.replace('"dask"', '"ray"'))
    script = run(str(python), "doubling.py", folder=tmp_path)
    assert (script.returncode, script.stdout) == (0, "6 True\n"), script.stderr
    assert "Starting a temporary Ray instance" in script.stderr
    assert script.stderr.count(" - doubled: ") == 3
    listed = run(str(python.with_name("riverrun")), "runners", folder=tmp_path)
    (row,) = [line.split() for line in listed.stdout.splitlines() if line.startswith("ray ")]
    assert row == ["ray", "runner_ray:RayTaskRunner", "runner-ray", "0.1.0", "parallel"]


def test_core_alone_says_what_to_install_for_dask(install: Callable[[str], Path], tmp_path: Path):
    python = install("core")
    (tmp_path / "doubling.py").write_text(FLOW)
    script = run(str(python), "doubling.py", folder=tmp_path)
    assert script.returncode == 1
    assert script.stderr.splitlines()[-1].endswith(
        "TaskRunnerNotInstalled: The task runner `dask` is not installed. To install it: pip install 'core[dask]'"
    )
    other = run(str(python.with_name("riverrun")), "run", "doubling.py:doubles", "--runner", "dask", folder=tmp_path)
    assert other.returncode == 2
    assert "pip install 'core[dask]'" in other.stderr
    assert "Traceback" not in other.stderr
    for absent in ("dask", "distributed", "runner_dask"):
        found = run(str(python), "-c", f"import {absent}", folder=tmp_path)
        assert f"No module named '{absent}'" in found.stderr
