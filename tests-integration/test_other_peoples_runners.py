"""Task runners by other people: the page that they read, what `riverrun new-runner` writes, and three whole projects.

Each is tried as its author would, and as its users would: wheels are built, and installed into an environment that has
nothing else, with no index in reach: from the folder that `nox -s integration` makes, and names in `WHEELHOUSE`.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "writing-a-task-runner.md").read_text("utf-8")
PLUGINS = Path(__file__).parent / "plugins"
WHEELHOUSE = os.environ.get("WHEELHOUSE", "")
RUNNERS = ["process", "loky", "mpi"]

pytestmark = [
    pytest.mark.skipif(not WHEELHOUSE, reason="`nox -s integration` makes the folder of wheels, and names it"),
    pytest.mark.skipif(sys.platform == "win32", reason="types what is typed into a POSIX shell"),
    pytest.mark.timeout(900),  # environments are made, and whole conformance suites run in them
]


class Environment:
    """A virtual environment with a pip and nothing else, in a folder of its own."""

    def __init__(self, folder: Path, *, is_made: bool = True) -> None:
        self.folder = folder
        self.bin = folder / ".venv" / "bin"
        if is_made:
            venv.create(folder / ".venv", with_pip=True)

    def run(self, *command: str, cwd: Path | None = None, status: int = 0) -> str:
        """Run a command as somebody would who has activated the environment; give what it wrote to stdout."""
        hidden = ("RIVERRUN_", "PIP_", "PYTHON", "VIRTUAL_ENV", "PYTEST_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELHOUSE, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            command, cwd=cwd or self.folder, env={**clean, **pip, "PATH": path}, capture_output=True, text=True,
            timeout=800, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def build(self, project: Path) -> Path:
        """Build the wheel of a project, in an environment that has its build system only; give its path."""
        folder = self.folder / f"dist-{project.name}"
        self.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(project))
        [wheel] = folder.iterdir()
        return wheel


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
    environment.run("pip", "install", "--quiet", "core", *(["loky"] if executor else []))
    environment.run("riverrun", "new-runner", "batch", *(["--executor", executor] if executor else []))
    project = environment.folder / "runner-batch"
    wheel = environment.build(project)
    environment.run("pip", "install", "--quiet", f"{wheel}[test]")
    # The suite takes minutes on loky; it runs below, on the project that has it.
    tests = ["tests/test_discovery.py"] if executor else []
    assert passed(environment.run("pytest", "-q", *tests, cwd=project)) >= (2 if executor else 100)
    example = re.search(r"```python\n(.*?)```", (project / "README.md").read_text("utf-8"), re.DOTALL)[1]
    (environment.folder / "example.py").write_text(example)
    assert environment.run("python", "example.py") == "[0, 2, 4, 6, 8]\n"
    row = re.search(r"^batch .*", environment.run("riverrun", "runners"), re.MULTILINE)[0].split()
    kind = "parallel" if executor else "concurrent"
    assert row == ["batch", "runner_batch:BatchTaskRunner", "runner-batch", "0.1.0", kind]


def test_new_runner_refuses_a_name_that_an_installed_package_has_taken(environment: Environment):
    wheel = environment.build(PLUGINS / "runner-loky")
    environment.run("pip", "install", "--quiet", str(wheel))
    environment.run("riverrun", "new-runner", "loky", status=2)
    environment.run("riverrun", "new-runner", "dask", status=2)
    environment.run("riverrun", "new-runner", "../loky", status=2)
    assert sorted(path.name for path in environment.folder.iterdir()) == [".venv", "dist-runner-loky"]


@pytest.fixture(scope="module")
def with_plugins(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Make one environment with all three, as somebody has who compares them."""
    environment = Environment(tmp_path_factory.mktemp("plugins"))
    wheels = {name: environment.build(PLUGINS / f"runner-{name}") for name in RUNNERS}
    extras = {"mpi": "[mpich,test]"}
    environment.run("pip", "install", "--quiet", *(f"{wheel}{extras.get(n, '[test]')}" for n, wheel in wheels.items()))
    return environment


@pytest.fixture(scope="module")
def outputs(with_plugins: Environment) -> Iterator[dict[str, Future[str]]]:
    """Run the tests of all three, which spend half of their time in waiting for processes, beside each other."""

    def tests_of(name: str) -> str:
        project = PLUGINS / f"runner-{name}"
        # With a configuration of its own, its root is its folder: nothing of this repository's is in force.
        return with_plugins.run("pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(project), cwd=project)

    with ThreadPoolExecutor(len(RUNNERS)) as threads:
        yield {name: threads.submit(tests_of, name) for name in RUNNERS}


@pytest.mark.parametrize("name", RUNNERS)
def test_somebody_elses_runner_passes_the_conformance_suite(outputs: dict[str, Future[str]], name: str):
    assert passed(outputs[name].result()) > 100


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
