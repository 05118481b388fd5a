"""What people type to install it, typed: with pip and with uv, into an empty environment, from a folder of wheels.

No index is in reach, because `core` on a public one is another project, and `--find-links` only adds a place to look:
the variables `PIP_NO_INDEX` and `UV_NO_INDEX` switch it off, so that the commands are those that people type. The
folder has to have everything then: `nox -s integration` fetches the dependencies, and names it in `WHEELHOUSE`.

By default pip installs one extra after the other into one environment, as the errors tell people to, and uv all at
once. Each by itself, with each of the two into an empty environment, is for `stress`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

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
LIMIT = 600
"""How long one command may take, in seconds: a limit against hangs."""
CLASSES = {
    "sequential": "SequentialTaskRunner",
    "concurrent": "ConcurrentTaskRunner",
    "dask": "DaskTaskRunner",
    "ray": "RayTaskRunner",
}

pytestmark = [
    pytest.mark.skipif(not WHEELHOUSE, reason="`nox -s integration` makes the folder of wheels, and names it"),
    pytest.mark.timeout(900),  # an environment is made, and pip runs in it
]
with_ray = pytest.mark.skipif(
    not [*Path(WHEELHOUSE or os.devnull).glob("runner_ray-*.whl")], reason="no wheel of runner-ray is built yet"
)


def execute(*command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    hidden = ("RIVERRUN_", "PIP_", "UV_", "PYTHON", "VIRTUAL_ENV")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    return subprocess.run(
        command, cwd=folder, env=clean | variables, capture_output=True, text=True, timeout=LIMIT, check=False
    )


class Installed:
    """An environment of its own, into which an installer installs."""

    def __init__(self, folder: Path, installer: str, cache: Path | None = None) -> None:
        """Make an empty one in a folder, for `pip` or `uv`; uv keeps in the cache what it has unpacked."""
        self.folder, self.installer, self.cache = folder, installer, cache
        venv.create(folder / "environment", with_pip=installer == "pip")
        self.python = folder / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        (folder / "doubling.py").write_text(FLOW)

    def install(self, what: str) -> str:
        """Install something, as people type it; give what the installer wrote on stderr."""
        if self.installer == "pip":
            installer = [str(self.python), "-m", "pip"]
            variables = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            variables["PIP_NO_COMPILE"] = "1"  # what is imported is compiled then: a small part of Ray and Dask
        else:
            # Not `python -m uv`, which sets VIRTUAL_ENV to the environment of the tests.
            installer = [str(Path(sys.executable).with_name("uv")), "pip"]
            variables = {"UV_NO_INDEX": "1", "UV_NO_CONFIG": "1", "VIRTUAL_ENV": str(self.folder / "environment")}
            variables["UV_CACHE_DIR"] = str(self.cache)
        done = execute(*installer, "install", "--find-links", WHEELHOUSE, what, folder=self.folder, **variables)
        assert done.returncode == 0, done.stderr
        return done.stderr

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

    def runs_its_script(self) -> None:
        script = self.script()
        assert (script.returncode, script.stdout) == (0, "6 True\n"), script.stderr
        assert "Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`" in script.stderr
        assert script.stderr.count(" - doubled: ") == 3

    def lacks(self, runner: str) -> str:
        """Fail unless a runner is missing, and its error says what to install; give that."""
        done = self.riverrun("run", "doubling.py:doubles", "--runner", runner)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == (
            f"Error: The task runner `{runner}` is not installed. To install it: pip install 'core[{runner}]'\n"
        )
        look = f"import importlib.util as found; print(found.find_spec('{runner}'), found.find_spec('runner_{runner}'))"
        assert execute(str(self.python), "-c", look, folder=self.folder).stdout == "None None\n"
        return f"core[{runner}]"

    def can_use(self) -> list[str]:
        listed = self.riverrun("runners")
        assert listed.returncode == 0, listed.stderr
        rows = [line.split() for line in listed.stdout.splitlines()[1:]]
        return [row[0] for row in rows if row[4:] in (["sequential"], ["concurrent"], ["parallel"])]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder in which uv keeps what it has unpacked, on the same disk, so that it links and does not copy."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def with_pip(tmp_path: Path) -> Installed:
    return Installed(tmp_path, "pip")


@pytest.fixture(params=[pytest.param("pip", marks=pytest.mark.stress), "uv"])
def with_each(request: pytest.FixtureRequest, tmp_path: Path, cache: Path) -> Installed:
    return Installed(tmp_path, request.param, cache)


@with_ray
def test_with_pip_one_runner_after_the_other_is_added_by_the_line_that_its_error_names(with_pip: Installed):
    with_pip.install("core")
    assert with_pip.can_use() == ["sequential", "concurrent"]
    with_pip.runs_on("concurrent")
    for runner, usable in [("dask", ["dask"]), ("ray", ["dask", "ray"])]:
        with_pip.install(with_pip.lacks(runner))
        assert with_pip.can_use() == ["sequential", "concurrent", *usable]
    with_pip.runs_its_script()


def test_core_alone_runs_on_its_two_runners_and_says_what_to_install_for_the_others(with_each: Installed):
    with_each.install("core")
    assert with_each.can_use() == ["sequential", "concurrent"]
    for runner in with_each.can_use():
        with_each.runs_on(runner)
    for runner in ("dask", "ray"):
        with_each.lacks(runner)
    script = with_each.script()
    assert script.returncode == 1
    assert script.stderr.splitlines()[-1].endswith(
        "TaskRunnerNotInstalled: The task runner `dask` is not installed. To install it: pip install 'core[dask]'"
    )


@with_ray
def test_core_with_all_runs_a_flow_on_each(with_each: Installed):
    with_each.install("core[all]")
    assert with_each.can_use() == ["sequential", "concurrent", "dask", "ray"]
    for runner in with_each.can_use():
        with_each.runs_on(runner)


@pytest.mark.stress
def test_core_with_dask_runs_a_flow_on_dask(with_each: Installed):
    with_each.install("core[dask]")
    assert with_each.can_use() == ["sequential", "concurrent", "dask"]
    with_each.runs_on("dask")
    with_each.runs_its_script()
    with_each.lacks("ray")


@with_ray
@pytest.mark.stress
def test_core_with_ray_runs_a_flow_on_ray(with_each: Installed):
    with_each.install("core[ray]")
    assert with_each.can_use() == ["sequential", "concurrent", "ray"]
    with_each.runs_on("ray")
    with_each.lacks("dask")


def test_an_extra_that_does_not_exist_is_a_warning_first_and_a_clear_error_when_its_runner_is_asked_for(
    with_each: Installed,
):
    told = with_each.install("core[dsk]")
    assert "core" in told
    assert "does not" in told
    assert "dsk" in told
    assert with_each.can_use() == ["sequential", "concurrent"]
    # What was meant is told with the line that installs it, and what was typed with what is near.
    with_each.lacks("dask")
    typo = with_each.riverrun("run", "doubling.py:doubles", "--runner", "dsk")
    assert (typo.returncode, typo.stdout) == (2, "")
    assert typo.stderr == (
        "Error: No task runner is named `dsk`; did you mean `dask`? Installed: concurrent, sequential. "
        "Not installed: dask (pip install 'core[dask]'), ray (pip install 'core[ray]').\n"
    )
