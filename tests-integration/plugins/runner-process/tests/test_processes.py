"""What this runner does beyond the suite: limits, initializers, new processes for old, scripts without a guard."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from riverrun import flow, task, task_runners
from riverrun.exceptions import TaskRunnerOptionError
from riverrun.testing import within
from runner_process import ProcessTaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@task
def process() -> int:
    return os.getpid()


@task
def variable(name: str) -> str | None:
    return os.environ.get(name)


def processes_of(runner: ProcessTaskRunner, runs: int) -> list[int]:
    @flow(task_runner=runner)
    def looking() -> list[int]:
        return [process().result() for _ in range(runs)]

    return within(60, looking)


def variable_of(runner: ProcessTaskRunner, name: str) -> str | None:
    @flow(task_runner=runner)
    def looking() -> str | None:
        return variable(name).result()

    return within(60, looking)


def test_the_name_leads_to_the_class() -> None:
    assert type(task_runners.get("process")) is ProcessTaskRunner


@pytest.mark.parametrize("option", ["max_workers", "threads_per_worker", "max_tasks_per_child"])
def test_a_count_below_one_is_refused(option: str) -> None:
    with pytest.raises(TaskRunnerOptionError, match=f"ProcessTaskRunner: {option} must be 1 or more, not 0."):
        ProcessTaskRunner(**{option: 0})


def test_arguments_without_an_initializer_are_refused() -> None:
    with pytest.raises(TaskRunnerOptionError, match="initargs are for the initializer; there is none."):
        ProcessTaskRunner(initargs=(1,))


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"])
def test_native_libraries_get_their_share_of_the_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(name, raising=False)
    assert variable_of(ProcessTaskRunner(max_workers=1), name) == str(CORES)
    assert variable_of(ProcessTaskRunner(max_workers=CORES), name) == "1"
    assert variable_of(ProcessTaskRunner(max_workers=2, threads_per_worker=7), name) == "7"


def test_a_variable_of_the_users_own_counts_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert variable_of(ProcessTaskRunner(max_workers=2), "OMP_NUM_THREADS") == "5"


def test_each_process_calls_the_initializer_before_its_first_task() -> None:
    def initialize(value: str) -> None:  # a closure: it travels by value
        os.environ["INITIALIZED"] = value

    runner = ProcessTaskRunner(max_workers=1, initializer=initialize, initargs=("by the flow",))
    assert variable_of(runner, "INITIALIZED") == "by the flow"


def test_an_initializer_that_raises_ends_every_run_as_crashed() -> None:
    def initialize() -> None:
        raise OSError("no licence")

    @flow(task_runner=ProcessTaskRunner(max_workers=2, initializer=initialize))
    def hopeless() -> list[str]:
        return [process().wait().name for _ in range(3)]  # type: ignore[union-attr]

    assert within(60, hopeless) == ["Crashed"] * 3


def test_a_process_is_replaced_after_so_many_tasks() -> None:
    seen = processes_of(ProcessTaskRunner(max_workers=1, max_tasks_per_child=3), 20)
    assert [seen.count(one) for one in dict.fromkeys(seen)] == [3, 3, 3, 3, 3, 3, 2]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a POSIX shell does")
def test_a_process_that_was_killed_while_idle_costs_no_run() -> None:
    @flow(task_runner=ProcessTaskRunner(max_workers=1))
    def goes_on() -> tuple[int, int]:
        first = process().result()
        os.kill(first, signal.SIGKILL)
        return first, process.with_options(retries=1)().result()

    first, second = within(60, goes_on)
    assert first != second


SCRIPT = """
import os
from riverrun import flow, task

class Point:
    def __init__(self, x):
        self.x = x

@task
def double(point):
    return Point(2 * point.x), os.getpid()

@flow(task_runner="process")
def doubles():
    point, process = double(Point(21)).result()
    print(point.x, process != os.getpid(), type(point) is Point)

doubles()
"""


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "42 True True\n"), done.stderr
    assert "Traceback" not in done.stderr


HOLDING = """
import os, sys, time
from pathlib import Path
from riverrun import flow, task

@task
def hold(file):
    Path(file + ".part").write_text(str(os.getpid()))
    os.rename(file + ".part", file)
    time.sleep(600)

@flow(task_runner="process")
def holding():
    hold(sys.argv[1]).result()

holding()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals as a POSIX shell does")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_runs_ends_with_the_process_of_its_flow(tmp_path: Path, number: int) -> None:
    (tmp_path / "script.py").write_text(HOLDING)
    file = tmp_path / "process"
    script = [sys.executable, "script.py", str(file)]
    with subprocess.Popen(script, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as flow_process:
        try:
            assert comes_true(file.exists)
            flow_process.send_signal(number)
            assert flow_process.wait(60) == -number
            assert comes_true(lambda: is_gone(int(file.read_text())))
        finally:
            flow_process.kill()


def comes_true(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # nobody has asked for its status: it has ended all the same
