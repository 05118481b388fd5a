from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    StartScript = Callable[[str], subprocess.Popen[str]]  # the fixture in conftest.py


SLEEPERS = """
    import asyncio, os, time
    from riverrun import flow, task
    from riverrun.task_runners import ConcurrentTaskRunner

    @task
    def sync_task():
        os.write(1, b"started\\n")  # in one piece: print() takes two
        time.sleep(600)

    @task
    async def async_task():
        os.write(1, b"started\\n")  # in one piece: print() takes two
        await asyncio.sleep(600)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=20))
    def sync_flow():
        for future in [SLEEP() for _ in range(20)]:
            future.result()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=20))
    async def async_flow():
        for future in [SLEEP() for _ in range(20)]:
            await future

    RUN
"""
RUNS = {"sync_flow": "sync_flow()", "async_flow": "asyncio.run(async_flow())"}
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals to a group of processes")
LIMIT = 60
"""How long anything may take before it counts as a hang, in seconds; the tasks sleep for much longer."""


def start_sleepers(start_script: StartScript, kind: str, where: str):
    process = start_script(SLEEPERS.replace("SLEEP", kind).replace("RUN", RUNS[where]))
    for _ in range(20):
        assert process.stdout.readline() == "started\n"
    return process


@pytest.mark.parametrize("kind", ["sync_task", "async_task"])
@pytest.mark.parametrize("where", RUNS)
def test_ctrl_c_once_with_twenty_sleeping_tasks_leaves_and_nothing_is_left(
    start_script: StartScript, kind: str, where: str
):
    process = start_sleepers(start_script, kind, where)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode in (-signal.SIGINT, 130)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("kind", ["sync_task", "async_task"])
@pytest.mark.parametrize("where", RUNS)
def test_ctrl_c_twice_with_twenty_sleeping_tasks_leaves_at_once(start_script: StartScript, kind: str, where: str):
    process = start_sleepers(start_script, kind, where)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.2)  # the second one is to come while the first is seen to
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode in (-signal.SIGINT, 130)
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


@pytest.mark.parametrize("kind", ["sync_task", "async_task"])
@pytest.mark.parametrize("where", RUNS)
def test_sigterm_with_twenty_sleeping_tasks_leaves_with_status_143(start_script: StartScript, kind: str, where: str):
    process = start_sleepers(start_script, kind, where)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
