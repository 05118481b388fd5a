"""Task runners by other people: the page that they read, what `riverrun new-runner` writes, and three whole projects.

Each is tried as its author would, and as its users would: wheels are built, and installed into an environment that has
nothing else, with no index in reach: from the folder that `nox -s integration` makes, and names in `WHEELHOUSE`.

The page is typed as it stands, with pip; where it does not matter who installs, uv does, in a tenth of the time. The
conformance suite runs whole on the page's pool of processes, and on what `new-runner` writes; on the three projects,
which start processes for each test, a few of its tests do by default, and all in `stress`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "writing-a-task-runner.md").read_text("utf-8")
PLUGINS = Path(__file__).parent / "plugins"
WHEELHOUSE = os.environ.get("WHEELHOUSE", "")
RUNNERS = ["process", "loky", "mpi"]
LIMIT = 1500
"""How long one command may take, in seconds: a limit against hangs."""
# What a runner of another kind is most likely to get wrong: its start and end, what travels, and workers that die.
SELECTED = [
    "starts_once_and_stops_once_for_a_flow_run_that[fails]",
    "no_listening_socket_is_left_by_a_flow_run_that[is_interrupted]",
    "tasks_run_in_the_processes_that_the_runner_declares",
    "sync_and_async_tasks_run_in_an_async_flow[asyncio]",
    "a_failure_goes_through_a_chain",
    "a_map_over_a_map",
    "a_result_that_cannot_travel",
    "log_records_reach_the_process_of_the_flow_from_a_task_that[completes]",
    "a_run_that_waits_for_a_worker_can_be_cancelled",
    "a_run_that_is_lost_with_its_worker_is_crashed",
    "no_run_hangs_when_a_worker_dies",
    "a_flow_run_whose_worker_died_has_workers_again",
    "leaves_no_other_behind_after[ctrl_c-sync]",
]

pytestmark = [
    pytest.mark.skipif(not WHEELHOUSE, reason="`nox -s integration` makes the folder of wheels, and names it"),
    pytest.mark.skipif(sys.platform == "win32", reason="types what is typed into a POSIX shell"),
    pytest.mark.timeout(LIMIT + 60),  # environments are made, and whole conformance suites run in them
]


class Environment:
    """A virtual environment with nothing in it, in a folder of its own."""

    def __init__(self, folder: Path, *, is_made: bool = True) -> None:
        self.folder = folder
        self.bin = folder / ".venv" / "bin"
        if is_made:
            self.run("uv", "venv", "--quiet", "--python", sys.executable, str(folder / ".venv"))

    def run(self, *command: str, cwd: Path | None = None, status: int = 0) -> str:
        """Run a command as somebody would who has activated the environment; give what it wrote to stdout."""
        hidden = ("RIVERRUN_", "PIP_", "UV_", "PYTHON", "VIRTUAL_ENV", "PYTEST_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELHOUSE, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        uv = {"UV_NO_INDEX": "1", "UV_FIND_LINKS": WHEELHOUSE, "UV_NO_CONFIG": "1", "VIRTUAL_ENV": str(self.bin.parent)}
        uv["UV_CACHE_DIR"] = str(self.folder.parent / "cache")  # on the same disk, so that uv links and does not copy
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            command, cwd=cwd or self.folder, env={**clean, **pip, **uv, "PATH": path}, capture_output=True, text=True,
            timeout=LIMIT, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def build(self, project: Path) -> Path:
        """Build the wheel of a project, in an environment that has its build system only; give its path."""
        folder = self.folder / f"dist-{project.name}"
        self.run("uv", "build", "--quiet", "--wheel", "--out-dir", str(folder), str(project))
        [wheel] = folder.glob("*.whl")
        return wheel

    def install(self, *what: str) -> None:
        self.run("uv", "pip", "install", "--quiet", *what)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


def passed(output: str) -> int:
    """Give how many tests passed, if no test failed."""
    assert not re.search(r"\d+ (failed|error)", output), output
    return int(re.search(r"(\d+) passed", output)[1])


def block_of_the_page(after: str) -> str:
    return re.search(rf"{re.escape(after)}.*?```(?:python)?\n(.*?)```", PAGE, re.DOTALL)[1]


def test_the_page_is_followed_word_by_word_up_to_a_passing_suite_and_a_flow_that_runs_by_name(tmp_path: Path):
    environment = Environment(tmp_path, is_made=False)  # the page makes it
    typed = block_of_the_page("an empty folder, and in it:")
    assert "riverrun new-runner slurm" in typed
    assert passed(environment.run("bash", "-e", "-c", typed)) > 100
    flows = block_of_the_page("in a file `flows.py`:")
    project = tmp_path / "runner-slurm"
    (project / "flows.py").write_text(flows)
    typed = re.search(r"```\n(riverrun run .*)\n```", PAGE)[1]
    assert environment.run("bash", "-c", typed, cwd=project) == "[0, 2, 4, 6]\n"
    assert "slurm" in environment.run("riverrun", "runners")


@pytest.mark.parametrize("executor", ["", "loky.ProcessPoolExecutor"])
def test_what_new_runner_writes_builds_installs_and_passes_its_own_tests(environment: Environment, executor: str):
    environment.install("core", *(["loky"] if executor else []))
    environment.run("riverrun", "new-runner", "batch", *(["--executor", executor] if executor else []))
    project = environment.folder / "runner-batch"
    wheel = environment.build(project)
    environment.install(f"{wheel}[test]")
    # The suite takes minutes on loky; it runs below, on the project that has it.
    tests = ["tests/test_discovery.py"] if executor else []
    assert passed(environment.run("pytest", "-q", *tests, cwd=project)) >= (2 if executor else 100)
    example = re.search(r"```python\n(.*?)```", (project / "README.md").read_text("utf-8"), re.DOTALL)[1]
    (environment.folder / "example.py").write_text(example)
    assert environment.run("python", "example.py") == "[0, 2, 4, 6, 8]\n"
    row = re.search(r"^batch .*", environment.run("riverrun", "runners"), re.MULTILINE)[0].split()
    kind = "parallel" if executor else "concurrent"
    assert row == ["batch", "runner_batch:BatchTaskRunner", "runner-batch", "0.1.0", kind]


def test_new_runner_refuses_a_name_that_an_installed_package_has_taken(with_plugins: Environment, tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    for name in ("loky", "dask", "../loky"):
        with_plugins.run("riverrun", "new-runner", name, cwd=folder, status=2)
    assert [*folder.iterdir(), *tmp_path.iterdir()] == [folder]


@pytest.fixture(scope="module")
def with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make one environment with all three, as somebody has who compares them."""
    environment = Environment(tmp_path_factory.mktemp("plugins"))
    wheels = {name: environment.build(PLUGINS / f"runner-{name}") for name in RUNNERS}
    extras = {"mpi": "[mpich,test]"}
    environment.install(*(f"{wheel}{extras.get(name, '[test]')}" for name, wheel in wheels.items()))
    return environment


def passed_of(environment: Environment, name: str, *which: str) -> int:
    """Run tests of a plugin as its author does; give how many there were, if they passed."""
    project = PLUGINS / f"runner-{name}"
    command = ["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project)]
    return passed(environment.run(*command, *which, cwd=project))


@pytest.mark.stress
@pytest.mark.parametrize("name", RUNNERS)
def test_somebody_elses_runner_passes_the_conformance_suite(with_plugins: Environment, name: str):
    assert passed_of(with_plugins, name) > 100


@pytest.mark.parametrize("name", RUNNERS)
def test_somebody_elses_runner_passes_a_selection_of_the_conformance_suite(with_plugins: Environment, name: str):
    selected = " or ".join(SELECTED)
    assert passed_of(with_plugins, name, "tests/test_conformance.py", "-k", selected) >= len(SELECTED)


def test_a_runner_on_processes_passes_the_tests_of_its_own(with_plugins: Environment):
    assert passed_of(with_plugins, "process", "tests/test_processes.py") > 5


def test_a_runner_on_mpi_passes_the_tests_of_its_own(with_plugins: Environment):
    assert passed_of(with_plugins, "mpi", "tests/test_job.py") > 10


@pytest.mark.parametrize("name", RUNNERS)
def test_a_flow_runs_by_name_on_somebody_elses_runner(with_plugins: Environment, name: str):
    example = re.search(
        r"```python\n(.*?)```", (PLUGINS / f"runner-{name}" / "README.md").read_text("utf-8"), re.DOTALL
    )[1]
    assert f'task_runner="{name}"' in example
    assert "__main__" not in example
    (with_plugins.folder / f"example_{name}.py").write_text(example)
    assert with_plugins.run("python", f"example_{name}.py") == "[0, 2, 4, 6, 8]\n"
    (with_plugins.folder / "plain.py").write_text(
        block_of_the_page("in a file `flows.py`:").replace('"slurm"', '"sequential"')
    )
    assert with_plugins.run("riverrun", "run", "plain.py", "--runner", name) == "[0, 2, 4, 6]\n"
    row = re.search(rf"^{name} .*", with_plugins.run("riverrun", "runners"), re.MULTILINE)[0].split()
    assert row[2:] == [f"runner-{name}", "0.1.0", "parallel"]


def imports_of(folder: Path) -> set[str]:
    modules: set[str] = set()
    for file in folder.rglob("*.py"):
        for statement in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(statement, ast.ImportFrom):
                modules.add(statement.module or "")
                modules.update(f"{statement.module}.{alias.name}" for alias in statement.names)
            elif isinstance(statement, ast.Import):
                modules.update(alias.name for alias in statement.names)
    return {module for module in modules if module.partition(".")[0] == "riverrun"}


@pytest.mark.parametrize("name", RUNNERS)
def test_somebody_elses_runner_uses_public_modules_only(name: str):
    used = imports_of(PLUGINS / f"runner-{name}")
    assert "riverrun.abc" in used
    assert [module for module in used if "._" in module] == []


def test_a_runner_on_loky_takes_fewer_than_25_lines():
    source = (PLUGINS / "runner-loky" / "src" / "runner_loky" / "_runner.py").read_text("utf-8")
    tree = ast.parse(source)
    prose = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    code = [
        line
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and number not in prose and not line.strip().startswith("#")
    ]
    assert 0 < len(code) <= 25
