from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    StartScript = Callable[[str], subprocess.Popen[str]]  # the fixture in conftest.py

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals to a group of processes")
LIMIT = 60
"""How long anything may take before it counts as a hang, in seconds; what sleeps does so for much longer."""


def test_ctrl_c_in_a_task_ends_the_task_and_the_flow_at_once(start_script: StartScript):
    process = start_script("""
        import time
        from riverrun import flow, task

        @task(on_failure=[lambda task, run, state: print(state, flush=True)])
        def sleep():
            print("started", flush=True)
            for _ in range(6000):  # a signal that comes just before one of them is seen after it
                time.sleep(0.1)

        @task
        def never():
            print("never", flush=True)

        @flow(task_runner="sequential", on_crashed=[lambda flow, run, state: print(state, flush=True)])
        def sleeping():
            sleep()
            never()

        sleeping()
    """)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode in (-signal.SIGINT, 130)
    assert output.splitlines() == [
        "Crashed(message='Task run was interrupted: KeyboardInterrupt.', type=CRASHED)",
        "Crashed(message='Flow run was interrupted: KeyboardInterrupt.', type=CRASHED)",
    ]
    assert "in sleep" in errors, "the traceback leads to the line that was interrupted"
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


@pytest.mark.parametrize("kind", ["", "async "])
def test_ctrl_c_in_a_task_of_an_async_flow_ends_the_flow(start_script: StartScript, kind: str):
    wait = "await anyio.sleep(0.1)" if kind else "time.sleep(0.1)"
    process = start_script(f"""
        import time
        import anyio
        from riverrun import flow, task

        @task
        {kind}def sleep():
            print("started", flush=True)
            for _ in range(6000):  # a signal that comes just before one of them is seen after it
                {wait}

        @flow(task_runner="sequential")
        async def sleeping():
            await sleep()

        anyio.run(sleeping)
    """)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=LIMIT)
    assert process.returncode in (-signal.SIGINT, 130)


def test_sigterm_in_a_task_ends_the_flow_with_status_143(start_script: StartScript):
    process = start_script("""
        import time
        from riverrun import flow, task

        @task
        def sleep():
            print("started", flush=True)
            for _ in range(6000):  # a signal that comes just before one of them is seen after it
                time.sleep(0.1)

        @flow(task_runner="sequential", on_crashed=[lambda flow, run, state: print(state, flush=True)])
        def sleeping():
            sleep()

        sleeping()
    """)
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert output == "Crashed(message='Flow run was interrupted: Terminated.', type=CRASHED)\n"


def test_a_sync_task_in_the_main_thread_is_interrupted_at_its_time_limit(start_script: StartScript):
    process = start_script("""
        import time
        from riverrun import flow, task

        @task(timeout_seconds=0.2)
        def sleep():
            time.sleep(600)

        @task
        def following():
            return "went on"

        @flow(task_runner="sequential")
        def sleeping():
            state = sleep().wait()
            return repr(state), following().result()

        print(*sleeping(), sep="\\n")
    """)
    output, errors = process.communicate(timeout=LIMIT)
    assert output.splitlines() == [
        "TimedOut(message='Task run exceeded timeout of 0.2 seconds', type=FAILED)",
        "went on",
    ], errors


def test_sigterm_between_two_tasks_of_an_async_flow_leaves_nothing_of_ours_on_stderr(start_script: StartScript):
    process = start_script("""
        import asyncio, os, signal
        import anyio
        from riverrun import flow, task

        sleep = anyio.sleep

        async def sleep_at_sigterm(seconds):
            print("between two tasks", flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            await sleep(seconds)

        @task
        def nothing():
            anyio.sleep = sleep_at_sigterm

        @flow(task_runner="sequential")
        async def two():
            nothing()
            await nothing()

        asyncio.run(two())
    """)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 143
    assert output == "between two tasks\n"
    assert "never retrieved" not in errors
    assert "Traceback" not in errors
