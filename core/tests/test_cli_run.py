from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Command, Write

    Start = Callable[..., subprocess.Popen[str]]

FAILING = """
    from riverrun import flow, task

    @task
    def divide(x):
        return 1 / x

    @task
    def double(x):
        return 2 * x

    @flow(task_runner="concurrent")
    def fails():
        future = divide(0)
        double(future)
        future.result()

    @flow(task_runner="concurrent")
    async def fails_async():
        await divide(0)

    @flow(task_runner="sequential")
    def refuses():
        from riverrun.states import Failed
        return Failed("no disk")

    @flow(task_runner="sequential")
    def leaves(code: int):
        raise SystemExit(code)

    @flow(task_runner="sequential")
    def misuses():
        divide.map()
"""
SLEEPING = """
    import asyncio, time
    from riverrun import flow, task

    @task
    def nap():
        for _ in range(6000):  # a signal that comes just before one of them is seen after it
            time.sleep(0.1)

    started = []

    @task
    async def async_nap():
        started.append(1)
        await asyncio.sleep(600)

    @flow(task_runner="concurrent")
    def naps():
        for _ in range(20):
            nap()
        print("asleep", flush=True)

    @flow(task_runner="concurrent")
    async def async_naps():
        for _ in range(20):
            async_nap()
        while len(started) < 20:
            await asyncio.sleep(0)
        print("asleep", flush=True)

    @flow(task_runner="sequential")
    def one_nap():
        print("asleep", flush=True)
        nap()
"""


@pytest.fixture
def start(bare_settings: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give a function that starts the command line in a process of its own; none of them outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "riverrun", *words]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=30)


def end(process: subprocess.Popen[str], number: int) -> str:
    """Send a signal, and give what the process wrote to stderr before it ended."""
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def test_a_completed_flow_prints_what_it_prints_and_logs_to_stderr(start: Start, write: Write):
    write("f.py", "from riverrun import flow\n\n@flow\ndef f():\n    print('mine')\n    return 5\n")
    process = start("run", "f.py")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "mine\n")
    assert "Beginning flow run" in err
    assert err.endswith("finished in state Completed(message=None, type=COMPLETED)\n")


def test_the_log_level_holds_for_the_run(start: Start, write: Write):
    write("f.py", "from riverrun import flow\n\n@flow\ndef f():\n    pass\n")
    assert start("--log-level", "error", "run", "f.py").communicate(timeout=60) == ("", "")


def test_an_async_flow_runs(command: Command, write: Write):
    write(
        "f.py", "from riverrun import flow\n\n@flow(task_runner='sequential')\nasync def f(x: int):\n    print(x + 1)\n"
    )
    assert command("run", "f.py", "-p", "x=1") == (0, "2\n", "")


def test_a_failed_flow_shows_the_users_frames_and_the_notes(command: Command, write: Write):
    file = write("f.py", FAILING)
    ended = command("run", "f.py:fails")
    assert (ended.status, ended.out) == (1, "")
    lines = ended.err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert f'  File "{file}", line 16, in fails' in lines
    assert f'  File "{file}", line 6, in divide' in lines
    assert len([line for line in lines if line.startswith("  File ")]) == 2
    assert lines[-3] == "ZeroDivisionError: division by zero"
    assert lines[-2].startswith("Task run 'divide-")
    assert lines[-1] == "1 run was not ready, because of runs that did not complete."


def test_a_failed_async_flow_shows_the_users_frames(command: Command, write: Write):
    file = write("f.py", FAILING)
    ended = command("run", "f.py:fails_async")
    assert ended.status == 1
    frames = [line.strip() for line in ended.err.splitlines() if line.startswith("  File ")]
    assert frames == [f'File "{file}", line 20, in fails_async', f'File "{file}", line 6, in divide']


def test_the_whole_traceback_is_shown_on_demand(command: Command, write: Write):
    write("f.py", FAILING)
    ended = command("run", "f.py:fails", "--traceback")
    assert ended.status == 1
    assert "_cli_run.py" in ended.err


def test_a_failure_that_no_line_of_the_users_raised_is_told_alone(command: Command, write: Write):
    write("f.py", FAILING)
    assert command("run", "f.py:refuses") == (1, "", "riverrun.exceptions.FailedRun: no disk\n")


def test_an_error_of_riverrun_in_a_flow_shows_the_line_of_the_user(command: Command, write: Write):
    write("f.py", FAILING)
    ended = command("run", "f.py:misuses")
    assert ended.status == 1
    assert "    divide.map()\n" in ended.err
    assert ended.err.splitlines()[-1].startswith("riverrun.exceptions.MappingMissingIterable: ")


@pytest.mark.parametrize("code", [0, 3])
def test_a_flow_that_exits_did_not_complete(command: Command, write: Write, code: int):
    write("f.py", FAILING)
    assert command("run", "f.py:leaves", "-p", f"code={code}") == (
        1,
        "",
        (
            f"Flow 'leaves' called `sys.exit({code})`, so it did not complete. "
            "A flow ends with `return`, or fails with `raise`.\n"
        ),
    )


def test_hooks_of_the_flow_are_called(command: Command, write: Write):
    write(
        "f.py",
        """
        from riverrun import flow

        def told(flow, flow_run, state):
            print(flow.name, flow_run.parameters, state.name)

        @flow(task_runner="sequential", on_completion=[told], on_failure=[told])
        def f(x: int):
            1 / x
        """,
    )
    assert command("run", "f.py", "-p", "x=1").out == "f {'x': 1} Completed\n"
    assert command("run", "f.py", "-p", "x=0").out == "f {'x': 0} Failed\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
@pytest.mark.parametrize("name", ["naps", "async_naps", "one_nap"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_sleeping_tasks_and_shows_in_the_status(
    start: Start, write: Write, name: str, number: int, status: int
):
    write("f.py", SLEEPING)
    process = start("run", f"f.py:{name}")
    assert process.stdout.readline() == "asleep\n"
    err = end(process, number)  # the tasks sleep for much longer
    assert process.returncode == status, err
    assert err.endswith("Interrupted.\n" if number == signal.SIGINT else "Terminated.\n")
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
def test_two_interrupts_leave_at_once(start: Start, write: Write):
    write("f.py", SLEEPING)
    process = start("run", "f.py:naps")
    assert process.stdout.readline() == "asleep\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent")
def test_an_interrupt_while_the_file_is_imported_shows_in_the_status(start: Start, write: Write):
    write("f.py", "import time\nprint('importing', flush=True)\nfor _ in range(6000):\n    time.sleep(0.1)\n")
    process = start("run", "f.py")
    assert process.stdout.readline() == "importing\n"
    err = end(process, signal.SIGINT)
    assert (process.returncode, err) == (130, "Interrupted.\n")


def test_what_is_no_command_and_no_option_is_told(command: Command):
    ended = command("rum")
    assert ended.status == 2
    assert "Error: No such command 'rum'." in ended.err
    assert command("run").err.endswith("Error: Missing argument 'PATH_OR_MODULE[:FLOW]'.\n")
    assert command("run", "f.py", "--rnner", "x").status == 2


def test_help_tells_the_commands_and_what_the_exit_statuses_mean(command: Command):
    ended = command("--help")
    assert ended.status == 0
    for name in ("run", "runners", "runs", "new-runner"):
        assert f"\n  {name} " in ended.out
    assert "Exit status: 0 completed, 1 failed, 2 usage, 130 interrupted, 143 terminated." in ended.out
    assert "\n  riverrun run census.py:census\n" in command("run", "-h").out


def test_the_version_is_told(command: Command):
    ended = command("--version")
    assert ended.status == 0
    assert ended.out.startswith("riverrun ")


def test_help_imports_neither_pydantic_nor_the_engine(bare_settings: Path):
    code = """
import sys
from riverrun._cli import main
try:
    main(["run", "--help"])
except SystemExit:
    pass
late = {"pydantic", "anyio", "cloudpickle", "importlib_metadata", "riverrun._engine", "riverrun._flows"}
print(late & {*sys.modules})
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout.splitlines()[-1] == "set()", ended.stderr
