from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from riverrun import _executor_class, _new_runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Command, Install, RunnerSource


def refusal(command: Command, *words: str) -> str:
    before = sorted(Path().rglob("*"))
    ended = command("new-runner", *words)
    assert (ended.status, ended.out) == (2, "")
    assert sorted(Path().rglob("*")) == before
    return ended.err


def test_a_package_is_written(command: Command):
    ended = command("new-runner", "my-batch")
    assert ended == (
        0,
        (
            "Wrote runner-my-batch, a package whose task runner is `my-batch`. Next:\n"
            '  cd runner-my-batch\n  pip install -e ".[test]"\n  pytest\n  riverrun runners\n'
        ),
        "",
    )
    assert os.listdir() == ["runner-my-batch"]  # noqa: PTH208
    assert sorted(path.as_posix() for path in Path("runner-my-batch").rglob("*") if path.is_file()) == [
        "runner-my-batch/.github/workflows/tests.yml",
        "runner-my-batch/.gitignore",
        "runner-my-batch/LICENSE",
        "runner-my-batch/README.md",
        "runner-my-batch/pyproject.toml",
        "runner-my-batch/src/runner_my_batch/__init__.py",
        "runner-my-batch/src/runner_my_batch/_runner.py",
        "runner-my-batch/src/runner_my_batch/py.typed",
        "runner-my-batch/tests/test_conformance.py",
        "runner-my-batch/tests/test_discovery.py",
    ]


def test_no_placeholder_is_left_in_what_is_written(command: Command):
    command("new-runner", "batch")
    for path in Path("runner-batch").rglob("*"):
        if path.is_file() and path.suffix != ".yml":
            assert "$" not in path.read_text(), path
    assert "python-version: ${{ matrix.python }}\n" in Path("runner-batch/.github/workflows/tests.yml").read_text()


def test_the_project_names_its_entry_point_and_what_it_needs(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_new_runner, "version_of", lambda _: "0.3.2")
    command("new-runner", "runner-batch")
    project = tomllib.loads(Path("runner-batch/pyproject.toml").read_text())["project"]
    assert project["name"] == "runner-batch"
    assert project["dependencies"] == ["core>=0.3,<0.4"]
    assert project["entry-points"] == {"riverrun.task_runners": {"batch": "runner_batch:BatchTaskRunner"}}


def test_the_project_names_the_pythons_that_core_names_and_its_workflow_tests_on_each(command: Command):
    command("new-runner", "batch")
    project = tomllib.loads(Path("runner-batch/pyproject.toml").read_text())["project"]
    prefix = "Programming Language :: Python :: 3."
    named = [line for line in project["classifiers"] if line.startswith(prefix)]
    assert named == [line for line in metadata("core").get_all("Classifier", []) if line.startswith(prefix)]
    pythons = ", ".join(f'"{line.rpartition(" ")[2]}"' for line in named)
    assert f"python: [{pythons}]\n" in Path("runner-batch/.github/workflows/tests.yml").read_text()


@pytest.mark.parametrize(
    ("version", "wanted"), [("0.1.0", ">=0.1,<0.2"), ("1.4.2", ">=1.4,<2"), ("2.0rc1", ">=2.0,<3"), ("", "")]
)
def test_the_range_of_versions_follows_from_the_installed_one(version: str, wanted: str):
    assert _new_runner._compatible(version) == wanted


@pytest.mark.parametrize(
    "executor", ["concurrent.futures.ThreadPoolExecutor", "concurrent.futures.ProcessPoolExecutor"]
)
def test_the_package_is_found_by_name_and_a_flow_runs_on_it(
    command: Command, install: Install, bare_settings: Path, executor: str
):
    command("new-runner", "batch", "--executor", executor)
    site = install("runner-batch", {"batch": "runner_batch:BatchTaskRunner"})
    python_path = os.pathsep.join([str(site), str(bare_settings / "runner-batch" / "src")])
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:anyio", "-W", "error"]  # anyio's plugin takes long to load
    tests = [sys.executable, "-m", "pytest", *options, "tests/test_discovery.py"]
    ended = subprocess.run(
        tests,
        cwd="runner-batch",
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_the_name_of_the_distribution_does_as_well(command: Command):
    assert command("new-runner", "runner-batch").out.startswith(
        "Wrote runner-batch, a package whose task runner is `batch`."
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("My_Batch", ": riverrun new-runner my-batch"),
        ("9lives", ": riverrun new-runner lives"),
        ("a--b", ": riverrun new-runner a-b"),
        ("../x", ": riverrun new-runner x"),
        ("a b", ": riverrun new-runner a-b"),
        ("x\n", ": riverrun new-runner x"),
        ("", "."),
        ("é", "."),
    ],
)
def test_an_invalid_name_is_refused_with_a_near_one(command: Command, name: str, hint: str):
    assert refusal(command, name) == (
        f"Error: `{name}` cannot be the name of a task runner. "
        f"Type lower-case letters and digits, with `-` between words{hint}\n"
    )


def test_a_name_of_riverruns_own_is_refused(command: Command):
    assert refusal(command, "dask") == "Error: The name `dask` belongs to Riverrun (runner-dask). Choose another.\n"


def test_a_name_that_is_taken_is_refused(command: Command, install: Install, runner_source: RunnerSource):
    install("slurm-for-riverrun", {"slurm": "a:B"})
    install("runner-loky", {"lokey": "a:B"})
    assert refusal(command, "slurm") == (
        "Error: The name `slurm` is taken: slurm-for-riverrun 1.0 has a task runner `slurm`. Choose another.\n"
    )
    assert refusal(command, "loky") == (
        "Error: The name `loky` is taken: runner-loky 1.0 has a task runner `lokey`. Choose another.\n"
    )
    install("something", {}, {"runner_ab": ""})
    assert (
        refusal(command, "ab")
        == "Error: The name `ab` is taken: there is a package `runner_ab` already. Choose another.\n"
    )


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_folder_that_exists_is_refused_and_stays(command: Command, make: Callable[[Path], None]):
    make(Path("runner-batch"))
    assert (
        refusal(command, "batch")
        == "Error: `runner-batch` exists here. Choose another name, or go to another folder.\n"
    )


def test_a_template_that_fails_leaves_nothing_behind(command: Command, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(_new_runner._FILES, "tests/more.py", "missing.template")
    assert refusal(command, "batch").startswith("Error: `runner-batch` cannot be written: ")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("loky", "is no dotted path. Type one such as: concurrent.futures.ThreadPoolExecutor"),
        (
            "no_such_library.Pool",
            "cannot be imported: No module named 'no_such_library'. Install it here first, or check the path.",
        ),
        (
            "concurrent.futures.TreadPool",
            (
                "cannot be imported: module 'concurrent.futures' has no attribute 'TreadPool'. "
                "Install it here first, or check the path."
            ),
        ),
        ("json.loads", "is no class, it is a function. Name the class whose objects have `submit()`."),
        (
            "json.JSONDecoder",
            "is no executor: it lacks `submit`, `__enter__`, `__exit__`. It must be like concurrent.futures.Executor.",
        ),
        ("concurrent.futures.Executor", "is no executor: it is abstract. It must be like concurrent.futures.Executor."),
    ],
)
def test_what_is_no_executor_is_refused(command: Command, path: str, text: str):
    assert refusal(command, "batch", "--executor", path) == f"Error: `--executor {path}` {text}\n"


def test_an_executor_of_no_distribution_is_to_be_added_by_hand(command: Command, monkeypatch: pytest.MonkeyPatch):
    Path("loose_pool.py").write_text(
        "from concurrent.futures import ThreadPoolExecutor\nclass Pool(ThreadPoolExecutor): ..."
    )
    monkeypatch.syspath_prepend(Path.cwd())
    assert command("new-runner", "loose", "--executor", "loose_pool.Pool").out.endswith(
        "  riverrun runners\n"
        "What `loose_pool` is installed from is not known: "
        "add it to the dependencies in runner-loose/pyproject.toml.\n"
    )
    assert "import Pool" in Path("runner-loose/src/runner_loose/_runner.py").read_text()


def test_what_is_told_of_an_executor_by_somebody_else(install: Install, monkeypatch: pytest.MonkeyPatch):
    source = """
        class Pool:
            def __init__(self, queue="short"): ...
            def submit(self, call): ...
            def __enter__(self): ...
            def __exit__(self, *error): ...
    """
    site = install("somebody-elses", {}, {"elses_pool": source})
    (next(site.glob("*.dist-info")) / "top_level.txt").write_text("elses_pool\n")
    found = _executor_class.examine("elses_pool:Pool")
    assert (found.module, found.name, found.concurrency) == ("elses_pool", "Pool", "PARALLEL")
    assert found.distributions == ("somebody-elses",)
    assert found.fragments()["start"] == "Pool()"
    assert found.fragments()["concurrency_comment"] == "  # CONCURRENT, if it stays in this process"
