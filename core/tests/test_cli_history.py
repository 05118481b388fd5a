from __future__ import annotations

import json
import stat
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command, Write

FLOWS = """
    from riverrun import flow, task

    @task
    def double(x):
        return 2 * x

    @flow(task_runner="sequential", flow_run_name="{name}")
    def inner(name):
        double(1)

    @flow(task_runner="sequential", flow_run_name="{name}")
    def outer(name: str, secret: str = "hunter2", fail: bool = False):
        double.map(range(3))
        inner("below")
        if fail:
            raise ValueError(secret)
"""


@pytest.fixture
def home(bare_settings: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    write("f.py", FLOWS)
    monkeypatch.setenv("RIVERRUN_HOME", str(bare_settings / "home"))
    return bare_settings / "home"


def test_without_a_home_nothing_is_kept_and_the_command_says_what_to_set(
    command: Command, write: Write, bare_settings: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(bare_settings))
    write("f.py", FLOWS)
    assert command("run", "f.py:outer", "-p", "name=a").status == 0
    assert [path.name for path in bare_settings.iterdir()] == ["f.py"]
    assert command("runs") == (
        2,
        "",
        (
            "Error: No history is kept: `riverrun run` writes one only where you name a folder for it.\n"
            "Type `export RIVERRUN_HOME=~/.riverrun`, "
            'or write `home = ".riverrun"` below [tool.riverrun] in pyproject.toml.\n'
        ),
    )


def test_a_run_is_one_line_without_any_value_or_message(command: Command, home: Path):
    assert command("run", "f.py:outer", "-p", "name=a", "-p", "fail=true").status == 1
    (line,) = (home / "runs.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert list(record) == ["id", "name", "flow", "state", "type", "runner", "start", "end", "task_runs"]
    assert (record["name"], record["flow"], record["state"]) == ("a", "outer", "Failed")
    assert (record["runner"], record["task_runs"]) == ("SequentialTaskRunner", 4)
    assert "hunter2" not in line


@pytest.mark.skipif(sys.platform == "win32", reason="other rights there")
def test_only_the_user_may_read_the_history(command: Command, home: Path):
    command("run", "f.py:outer", "-p", "name=a")
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "runs.jsonl").stat().st_mode) == 0o600


def test_the_newest_runs_are_listed_first(command: Command, home: Path):
    for name in "abc":
        command("run", "f.py:outer", "-p", f"name={name}")
    lines = command("runs", "-n", "2").out.splitlines()
    assert lines[0].split() == ["NAME", "FLOW", "STATE", "RUNNER", "STARTED", "DURATION", "TASK", "RUNS"]
    assert [line.split()[0] for line in lines[1:]] == ["c", "b"]
    assert lines[1].split()[1:4] == ["outer", "Completed", "SequentialTaskRunner"]
    assert lines[1].split()[-1] == "4"


def test_a_home_in_the_file_serves_too(command: Command, write: Write, bare_settings: Path):
    write("f.py", FLOWS)
    write("pyproject.toml", "[tool.riverrun]\nhome = 'kept'\n")
    command("run", "f.py:outer", "-p", "name=a")
    assert (bare_settings / "kept" / "runs.jsonl").exists()


def test_an_empty_history_is_told(command: Command, home: Path):
    assert command("runs") == (0, f"No flow run is recorded in {home / 'runs.jsonl'} yet.\n", "")


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '"text"',
        '{"name": "cut sh',
        '{"name": 1, "flow": "f", "state": "s", "runner": "r", "start": 1, "end": 2, "task_runs": 0}',
        '{"name": "n", "flow": "f", "state": "s", "runner": "r", "start": 1e99, "end": 2, "task_runs": 0}',
        '{"name": "n", "flow": "f", "state": "s", "runner": "r", "start": "x", "end": 2, "task_runs": 0}',
        '{"name": "n", "flow": "f", "state": "s", "runner": "r", "start": 1, "end": NaN, "task_runs": 0}',
    ],
)
def test_lines_that_cannot_be_read_are_counted_and_left_out(command: Command, home: Path, line: str):
    command("run", "f.py:outer", "-p", "name=a")
    with (home / "runs.jsonl").open("a") as file:
        file.write(f"{line}\n\n")
    ended = command("runs")
    assert ended.status == 0
    assert len(ended.out.splitlines()) == 2
    assert ended.err == f"1 line of {home / 'runs.jsonl'} cannot be read and is left out.\n"


def test_a_line_that_was_cut_short_does_not_take_the_next_run_with_it(command: Command, home: Path):
    home.mkdir()
    (home / "runs.jsonl").write_text('{"name": "cut sh')
    command("run", "f.py:outer", "-p", "name=a")
    assert command("runs").out.splitlines()[1].split()[0] == "a"


def test_names_cannot_disturb_the_terminal(command: Command, home: Path):
    command("run", "f.py:outer", "-p", "name=red\x1b[31m\nline")
    assert "red?[31m?line" in command("runs").out


def test_a_history_that_cannot_be_written_does_not_change_how_the_run_ended(command: Command, home: Path):
    home.write_text("a file where the folder should be")
    ended = command("run", "f.py:outer", "-p", "name=a")
    assert ended.status == 0
    assert ended.err.startswith("Error: the history could not be written: ")


def test_a_history_that_cannot_be_read_is_told(command: Command, home: Path):
    (home / "runs.jsonl").mkdir(parents=True)
    ended = command("runs")
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"Error: {home / 'runs.jsonl'} cannot be read: Is a directory.\n"
