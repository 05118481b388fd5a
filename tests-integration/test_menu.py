"""The contributor's menu: what nox says of bad input and of what failed, and that CI runs what the README shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parent.parent
TEST_FILE = """
import pytest

def test_that_is_well():
    pass

def test_that_fails():
    assert 1 == 2

@pytest.mark.stress
def test_that_draws_lots(rng, seed):
    assert rng.random() < 0

@pytest.mark.parametrize("text", ["two words"])
def test_with_a_text(text):
    assert text == ""
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The files that nox and pytest read, in a folder of their own."""
    for name in ("noxfile.py", "conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def run(workspace: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with some words, as in CI, and without what the nox that runs these tests has set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NOX_", "TESTS_"))}
    return subprocess.run(
        [sys.executable, *command],
        cwd=workspace,
        env={**clean, "CI": "true", **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def add_sessions(workspace: Path, source: str) -> None:
    noxfile = workspace / "noxfile.py"
    before, end, after = noxfile.read_text().partition("# -- what the command line says")
    assert end
    noxfile.write_text(before + dedent(source) + end + after)


def test_an_unknown_session_is_told_and_the_others_run(workspace: Path):
    add_sessions(
        workspace,
        """
        @nox.session(venv_backend="none")
        def nothing(session):
            session.log("I have run.")
        """,
    )
    done = run(workspace, "-m", "nox", "-s", "quikc", "nothing")
    assert "There is no session 'quikc'; did you mean 'quick'? `nox -l` lists them" in done.stderr
    assert "I have run." in done.stderr
    assert done.returncode == 1


def test_an_interpreter_that_is_missing_is_told_and_the_others_run(workspace: Path):
    add_sessions(
        workspace,
        """
        @nox.session(python=["3.99"])
        def missing(session):
            pass
        @nox.session(venv_backend="none")
        def nothing(session):
            session.log("I have run.")
        """,
    )
    done = run(workspace, "-m", "nox", "-s", "missing-3.99", "nothing")
    assert "Python interpreter 3.99 not found" in done.stderr
    assert "I have run." in done.stderr
    assert done.returncode == 0


def test_a_python_that_is_not_installed_is_told_before_a_whole_run(workspace: Path):
    noxfile = workspace / "noxfile.py"
    noxfile.write_text(noxfile.read_text().replace('PYTHONS = ["3.11"', 'PYTHONS = ["3.11", "3.99"'))
    add_sessions(
        workspace,
        """
        @nox.session(venv_backend="none")
        def nothing(session):
            pass
        nox.options.sessions = ["nothing"]
        """,
    )
    done = run(workspace, "-m", "nox")
    assert re.search(r"Not installed here, so not tested on: Python .*3\.99", done.stderr)
    assert done.returncode == 0


def test_what_failed_is_listed_at_the_end_with_the_line_that_runs_just_that_again(workspace: Path):
    (workspace / "test_some.py").write_text(TEST_FILE)
    failures = workspace / "list" / "failed.jsonl"
    failures.parent.mkdir()
    # As in a session: pytest adds to the list, nox prints it when all sessions have ended.
    options = ["-q", "-m", "stress or not stress", "--seed=41", "--tries=2", "-n2"]
    variables = {"TESTS_THAT_FAILED": str(failures), "NOX_CURRENT_SESSION": "stress-3.13"}
    done = run(workspace, "-m", "pytest", *options, **variables)
    assert "4 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert {json.loads(line)["session"] for line in failures.read_text().splitlines()} == {"stress-3.13"}

    script = (
        "import sys; sys.argv = ['nox']; import noxfile; noxfile._say_at_the_end(noxfile.Path('list/failed.jsonl'))"
    )
    said = run(workspace, "-c", script, TESTS_THAT_FAILED="not this process's to print")
    lines = [line.strip() for line in said.stdout.splitlines() if line]
    assert lines[0] == "Failed in stress-3.13:", said.stderr
    tests = {
        "test_some.py::test_that_fails",
        "test_some.py::test_that_draws_lots[seed=41]",
        "test_some.py::test_that_draws_lots[seed=42]",
        "test_some.py::test_with_a_text[two words]",
    }
    assert {*lines[1:5]} == tests
    assert lines[5] == "Just these again:"
    assert lines[6].startswith("nox -r -s stress-3.13 -- ")
    assert lines[6].endswith(" --seed 41 --tries 2")
    assert "'test_some.py::test_with_a_text[two words]'" in lines[6]
    assert not failures.exists()


def test_a_test_that_draws_lots_is_left_out_unless_it_is_asked_for(workspace: Path):
    (workspace / "test_some.py").write_text(TEST_FILE)
    done = run(workspace, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert "2 failed, 1 passed, 1 deselected" in done.stdout


def test_ci_runs_the_second_line_of_the_readme():
    """Nothing but that line, after it has shown nox where the Pythons are."""
    line = next(line for line in (ROOT / "README.md").read_text().splitlines() if line.endswith("&& .venv/bin/nox"))
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == line
