from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from textwrap import dedent
from types import SimpleNamespace

import anyio
import pytest
from riverrun import CancelledError, CrashedRun, flow, task, wait
from riverrun._signals import Terminated, _Handler
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")

LIMIT = 60
"""How long anything may take before it counts as a hang, in seconds."""
CANCELLED = "Cancelled(message='Task run was cancelled.', type=CANCELLED)"


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@pytest.fixture
def gate():
    """Give an event for what hangs to wait for; it is set at the end of the test in every case."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def slow(gate):
    @task
    def slow(started: threading.Event | None = None):
        if started is not None:
            started.set()
        gate.wait(LIMIT)
        return 1

    return slow


def test_a_run_that_waits_for_an_upstream_can_be_cancelled(gate, slow):
    @flow(task_runner="concurrent")
    def my_flow():
        future = add(slow())
        assert future.cancel() is True
        gate.set()
        return repr(future.wait()), future.task_run.run_count

    assert my_flow() == (CANCELLED, 0)


def test_a_run_that_waits_for_a_slot_can_be_cancelled_and_never_runs(gate, slow):
    ran = []

    @task
    def never():
        ran.append(1)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def my_flow():
        started = threading.Event()
        slow(started)
        assert started.wait(LIMIT)
        future = never()
        assert future.cancel() is True
        assert repr(future.state) == CANCELLED
        gate.set()
        return add(1)

    assert my_flow() == 2
    assert ran == []


def test_a_sync_run_that_has_started_cannot_be_cancelled(gate, slow):
    @flow(task_runner="concurrent")
    def my_flow():
        started = threading.Event()
        future = slow(started)
        assert started.wait(LIMIT)
        assert future.cancel() is False
        gate.set()
        return future

    assert my_flow() == 1


def test_an_async_run_that_has_started_is_stopped(run_async, task_runner):
    ended = []

    @task
    async def waiting(started):
        started.set()
        try:
            await anyio.sleep(600)
        finally:
            ended.append(1)

    @flow(task_runner=task_runner)
    async def my_flow():
        started = anyio.Event()
        future = waiting(started)
        await started.wait()
        assert future.cancel() is True
        with pytest.raises(CancelledError, match="^Task run was cancelled.$"):
            await future
        return repr(future.state)

    assert run_async(my_flow) == CANCELLED
    assert ended == [1]


def test_an_async_run_in_a_sync_flow_is_stopped():
    @task
    async def waiting(started):
        started.set()
        await anyio.sleep(600)

    @flow(task_runner="concurrent")
    def my_flow():
        started = threading.Event()
        future = waiting(started)
        assert started.wait(LIMIT)
        assert future.cancel() is True
        return repr(future.wait())

    assert my_flow() == CANCELLED


def test_a_flow_around_a_cancelled_run_is_cancelled(gate, slow):
    @flow(task_runner="concurrent")
    def my_flow():
        add(slow()).cancel()
        gate.set()

    assert repr(my_flow(return_state=True)) == "Cancelled(message='1/2 states cancelled.', type=CANCELLED)"
    with pytest.raises(CancelledError):
        my_flow()


def test_a_cancelled_run_calls_no_failure_hook_and_is_not_tried_again(gate, slow):
    seen = []
    hooks = {kind: [lambda *args: seen.append(1)] for kind in ("on_completion", "on_failure")}
    hooked = add.with_options(retries=5, **hooks)

    @flow(task_runner="concurrent")
    def my_flow():
        hooked(slow()).cancel()
        gate.set()
        return 1

    assert my_flow() == 1
    assert seen == []


def test_two_threads_cancel_a_run_once(gate, slow):
    @flow(task_runner="concurrent")
    def my_flow():
        upstream = slow()
        answers = []
        for _ in range(20):
            future = add(upstream)
            barrier = threading.Barrier(2)

            def cancel(future=future, barrier=barrier):
                barrier.wait(LIMIT)
                answers.append(future.cancel())

            threads = [threading.Thread(target=cancel) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        gate.set()
        return answers.count(True)

    assert my_flow() == 20


def test_a_submitted_subflow_is_cancelled_with_what_it_submitted(gate, slow):
    started = threading.Event()

    @flow
    def inner():
        slow(started).result()

    @flow(task_runner="concurrent")
    def outer():
        future = inner.submit()
        assert started.wait(LIMIT)
        future.cancel()
        state = future.wait(LIMIT / 2)
        assert not gate.is_set()
        return state is not None and not state.is_completed()

    assert outer() is True


def test_cancelling_the_coroutine_around_an_async_flow_cancels_the_flow(run_async, task_runner):
    ended, states = [], []

    @task
    async def waiting(started):
        started.set()
        try:
            await anyio.sleep(600)
        finally:
            ended.append(1)

    @flow(task_runner=task_runner, on_cancellation=[lambda flow, run, state: states.append(repr(state))])
    async def my_flow(started):
        await waiting(started)

    async def main():
        started = anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(my_flow.with_options(validate_parameters=False), started)
            await started.wait()
            group.cancel_scope.cancel()

    run_async(main)
    assert ended == [1]
    assert states == ["Cancelled(message='Flow run was cancelled.', type=CANCELLED)"]


# -- interrupts


def test_an_interrupt_in_a_flow_stops_everything_and_goes_on(task_runner, caplog):
    kept, seen = [], []

    @flow(task_runner=task_runner, flow_run_name="mine", on_crashed=[lambda flow, run, state: seen.append(repr(state))])
    def my_flow():
        kept.append(add(1))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        my_flow()
    crashed = "Crashed(message='Flow run was interrupted: KeyboardInterrupt.', type=CRASHED)"
    assert seen == [crashed]
    assert kept[0].done()
    assert f"Flow run 'mine' finished in state {crashed}" in caplog.text


def test_an_interrupt_in_a_sequential_task_ends_the_run_and_goes_on_to_the_flow():
    kept = []

    @task
    def interrupted():
        raise KeyboardInterrupt

    @flow(task_runner="sequential")
    def my_flow():
        try:
            kept.append(interrupted())
        finally:
            kept.append("the flow saw it")

    with pytest.raises(KeyboardInterrupt):
        my_flow()
    assert kept == ["the flow saw it"]


def test_runs_that_cannot_be_stopped_take_a_final_state_when_the_flow_is_interrupted(gate, slow):
    kept = []

    @flow(task_runner="concurrent", flow_run_name="mine")
    def my_flow():
        started = threading.Event()
        kept.append(slow(started))
        kept.append(add(kept[0]))
        assert started.wait(LIMIT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        my_flow()
    assert not gate.is_set()
    assert repr(kept[0].state) == (
        "Crashed(message=\"Flow run 'mine' ended while this task run was running.\", type=CRASHED)"
    )
    with pytest.raises(CrashedRun):
        kept[0].result()
    assert kept[1].done()
    assert not kept[1].state.is_completed()


signals_are_sent = pytest.mark.skipif(os.name != "posix", reason="sends signals to other processes")
SCRIPT = """
    import sys, threading, time
    from riverrun import flow, task
    from riverrun.task_runners import ConcurrentTaskRunner

    @task
    def sleeping(n):
        if n == 19:
            print("ready", flush=True)
        time.sleep(600)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=20))
    def my_flow():
        for n in range(20):
            sleeping(n)

    my_flow()
"""


def interrupted(tmp_path, number, *, times=1):
    """Run a flow of sleeping tasks in a process of its own, send it a signal, give the exit status and stderr."""
    script = tmp_path / "script.py"
    script.write_text(dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for _ in range(times):
            os.kill(process.pid, number)
        _, errors = process.communicate(timeout=LIMIT)  # the tasks sleep for much longer
    finally:
        process.kill()
    return process.returncode, errors


@signals_are_sent
def test_ctrl_c_once_ends_the_process_soon(tmp_path):
    status, errors = interrupted(tmp_path, signal.SIGINT)
    assert status == -signal.SIGINT  # how Python ends by itself; a shell calls that 130
    assert "KeyboardInterrupt" in errors


@signals_are_sent
def test_sigterm_ends_the_process_soon_with_143(tmp_path):
    status, errors = interrupted(tmp_path, signal.SIGTERM)
    assert status == 143
    assert "Crashed(message='Flow run was interrupted: Terminated.', type=CRASHED)" in errors


@signals_are_sent
def test_ctrl_c_twice_ends_the_process_at_once(tmp_path):
    status, _ = interrupted(tmp_path, signal.SIGINT, times=2)
    assert status == -signal.SIGINT  # how Python ends by itself; a shell calls that 130


def modules_on_the_stack_of(thread):
    frame, modules = sys._current_frames()[thread], set()
    while frame is not None:
        modules.add(frame.f_globals["__name__"])
        frame = frame.f_back
    return modules


WAITS = {
    "at the end of the flow": lambda _: None,
    "in result()": lambda future: future.result(),
    "in wait() with a time limit": lambda future: wait([future], timeout=600),
}


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot choose the thread of a signal")
@pytest.mark.parametrize("waits", WAITS.values(), ids=WAITS)
def test_a_signal_that_does_not_wake_the_main_thread_is_seen_all_the_same(gate, waits):
    # One that another thread receives does not, nor one that comes in the moment before the main thread waits.
    begun, given_up = threading.Event(), []

    def signals_itself(main):
        while "riverrun._waits" not in modules_on_the_stack_of(main) and not given_up:
            time.sleep(0.01)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    @task
    def hold():
        begun.set()
        given_up.append(not gate.wait(LIMIT))

    @flow(task_runner=ConcurrentTaskRunner())
    def interrupted():
        future = hold()
        assert begun.wait(LIMIT)  # on a worker: else the main thread might take it over
        threading.Thread(target=signals_itself, args=[threading.get_ident()]).start()
        waits(future)

    with pytest.raises(SystemExit):
        interrupted()
    assert not given_up, "it was seen before the task ended"


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system cannot choose the thread of a signal")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_signal_that_does_not_wake_the_event_loop_is_seen_all_the_same(gate, backend):
    given_up = []

    @task
    def hold():
        given_up.append(not gate.wait(20))

    @flow(task_runner=ConcurrentTaskRunner())
    async def interrupted():
        future = hold()
        threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGINT)).start()
        await future

    with pytest.raises(KeyboardInterrupt):
        anyio.run(interrupted, backend=backend)
    assert not given_up, "it was seen before the task ended"


def test_a_running_task_that_could_not_be_cancelled_keeps_its_retries(gate):
    begun, attempts = threading.Event(), []

    @task(retries=1)
    def shaky():
        attempts.append(1)
        begun.set()
        gate.wait(LIMIT)
        if len(attempts) == 1:
            raise ConnectionError
        return len(attempts)

    @flow(task_runner="concurrent")
    def my_flow():
        future = shaky()
        assert begun.wait(LIMIT)
        refused = future.cancel()
        gate.set()
        return refused, future.result()

    assert my_flow() == (False, 2)


SPINNING = """
    import asyncio
    from riverrun import flow, task

    @task
    async def spinning():
        print("ready", flush=True)
        while True:
            await asyncio.sleep(0)

    @flow(task_runner="concurrent")
    async def my_flow():
        await spinning()

    asyncio.run(my_flow())
"""


@signals_are_sent
@pytest.mark.parametrize("time_of_trying", [0, *(pytest.param(n, marks=pytest.mark.stress) for n in range(1, 12))])
def test_sigterm_ends_an_async_flow_whose_loop_is_at_work(tmp_path, time_of_trying):
    # The loop is mostly between taking a callback from its queue and running it: 5 of 12 such flows never ended.
    script = tmp_path / "script.py"
    script.write_text(dedent(SPINNING))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 143, errors


def test_sigterm_in_the_code_of_an_event_loop_is_raised_by_a_callback():
    handler, seen = _Handler(signal.SIGTERM, signal.SIG_DFL), []

    async def main():
        asyncio.get_running_loop().call_soon(seen.append, "what was in the queue before")
        handler(signal.SIGTERM, SimpleNamespace(f_globals=vars(asyncio.base_events)))
        seen.append("not raised here")
        await asyncio.sleep(60)

    with pytest.raises(Terminated):
        asyncio.run(main())
    assert seen == ["not raised here", "what was in the queue before"]
    with pytest.raises(Terminated):
        handler(signal.SIGTERM, SimpleNamespace(f_globals=vars(asyncio.base_events)))  # no loop is running


def test_a_process_ends_although_what_signals_cut_off_is_closed_as_python_exits(tmp_path):
    # Two SIGTERM leave the coroutine of an async flow as it is, where the second one comes while asyncio cancels what
    # is left. It is closed when there are no threads any more, and waited for that of the timers for ever.
    script = tmp_path / "script.py"
    script.write_text(
        dedent("""
            from riverrun._timers import Timers

            def cut_off(timers):
                timers.call_later(600, print)
                try:
                    yield
                finally:
                    timers.stop()
                    print("closed")

            kept = cut_off(Timers())
            next(kept)
        """)
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=25)
    finally:
        process.kill()
    assert output == "closed\n", errors
    assert process.returncode == 0
