from __future__ import annotations

import signal
import threading
import time
from itertools import pairwise

import anyio
import pytest
from riverrun import ResultTimeout, RunTimeout, flow, task
from riverrun.task_runners import ConcurrentTaskRunner

# Not pytest-timeout's signal: it is the one that interrupts code at its deadline.
pytestmark = [pytest.mark.timeout(120, method="thread"), pytest.mark.usefixtures("no_thread_left_behind")]

LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""
HANGS = LIMIT if hasattr(signal, "SIGALRM") else 1
"""For how long a body hangs that nobody ends, in seconds; where no signal can interrupt it, a flow waits that long."""
TRIES = 50
"""So many retries that one attempt is in time, however busy the machine."""
TASK_TIMED_OUT = "TimedOut(message='Task run exceeded timeout of 0.05 seconds', type=FAILED)"
FLOW_TIMED_OUT = "TimedOut(message='Flow run exceeded timeout of 0.05 seconds', type=FAILED)"


@pytest.fixture
def gate():
    """Give an event for what hangs to wait for; it is set at the end of the test in every case."""
    event = threading.Event()
    yield event
    event.set()


@task
def add(a: int, b: int = 1) -> int:
    return a + b


# -- tasks


def test_a_sync_task_that_takes_too_long_has_timed_out_at_its_deadline(task_runner, gate):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner=task_runner)
    def my_flow():
        future = slow()
        state = future.wait()
        assert not gate.is_set()
        gate.set()
        with pytest.raises(RunTimeout) as caught:
            future.result()
        assert str(caught.value) == "Task run exceeded timeout of 0.05 seconds"
        assert isinstance(caught.value, TimeoutError)
        assert not isinstance(caught.value, ResultTimeout)
        return repr(state)

    assert my_flow() == TASK_TIMED_OUT


def test_an_async_task_that_takes_too_long_is_cancelled_at_its_deadline(run_async, task_runner):
    ended = []

    @task(timeout_seconds=0.05)
    async def slow():
        try:
            await anyio.sleep(600)
        finally:
            ended.append(1)

    @flow(task_runner=task_runner)
    async def my_flow():
        with pytest.raises(RunTimeout, match="^Task run exceeded timeout of 0.05 seconds$"):
            await slow()
        return 1

    @flow(task_runner=task_runner)
    def sync_flow():
        return repr(slow().wait())

    assert run_async(my_flow) == 1
    assert sync_flow() == TASK_TIMED_OUT
    assert ended == [1, 1]


def test_a_sync_task_in_an_async_flow_has_timed_out_at_its_deadline(run_async, gate):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner="concurrent")
    async def my_flow():
        with pytest.raises(RunTimeout):
            await slow()
        gate.set()
        return await add(1)

    assert run_async(my_flow) == 2


def test_a_task_that_is_quick_enough_completes(task_runner, run_async):
    @flow(task_runner=task_runner)
    def my_flow():
        return add.with_options(timeout_seconds=600)(1)

    @task(timeout_seconds=600)
    async def quick():
        return 2

    @flow(task_runner=task_runner)
    async def async_flow():
        return await quick()

    assert my_flow() == 2
    assert run_async(async_flow) == 2


def test_a_timeout_error_of_the_users_code_is_a_failure_like_others(task_runner, run_async):
    @task(timeout_seconds=600)
    def timing_out():
        raise TimeoutError("the database did not answer")

    @task(timeout_seconds=600)
    async def async_timing_out():
        with anyio.fail_after(0):
            await anyio.sleep(1)

    @flow(task_runner=task_runner)
    async def my_flow():
        return [await gathered(timing_out()), await gathered(async_timing_out())]

    async def gathered(future):
        with pytest.raises(TimeoutError) as caught:
            await future
        return type(caught.value) is TimeoutError, future.state.name

    assert run_async(my_flow) == [(True, "Failed"), (True, "Failed")]


def test_the_late_result_of_a_run_that_timed_out_is_dropped(gate):
    late = threading.Event()

    @task(timeout_seconds=0.05, on_completion=[lambda *_: late.set()])
    def slow():
        gate.wait(HANGS)
        late.set()
        return "late"

    @flow(task_runner="concurrent")
    def my_flow():
        future = slow()
        future.wait()
        gate.set()
        assert late.wait(LIMIT)
        time.sleep(0.01)  # nothing says when the thread has gone on from there: this only gives it the chance
        return repr(future.state), future.task_run.run_count

    assert my_flow() == (TASK_TIMED_OUT, 1)


def test_the_late_failure_of_a_run_that_timed_out_is_dropped(gate, caplog):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)
        raise ValueError("late")

    @flow(task_runner="concurrent")
    def my_flow():
        future = slow()
        future.wait()
        gate.set()
        return repr(future.state)

    assert my_flow() == TASK_TIMED_OUT
    assert "late" not in caplog.text


def test_the_slot_of_a_run_that_timed_out_is_given_to_others(gate):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def my_flow():
        hanging = [slow(), slow()]
        others = [add(n) for n in range(3)]
        results = [future.result() for future in others]
        assert not gate.is_set()
        assert [future.wait().name for future in hanging] == ["TimedOut", "TimedOut"]
        return results

    assert my_flow() == [1, 2, 3]


def test_a_flow_does_not_wait_for_a_body_that_cannot_be_stopped(gate):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner="concurrent")
    def my_flow():
        slow()

    assert repr(my_flow(return_state=True)) == "Failed(message='1/1 states failed.', type=FAILED)"
    assert not gate.is_set()


def test_a_run_that_timed_out_is_tried_again(task_runner, gate):
    attempts = []

    @task(timeout_seconds=0.05, retries=TRIES)
    def slow_once():
        attempts.append(1)
        if len(attempts) == 1:
            gate.wait(HANGS)
        return "in time"

    @flow(task_runner=task_runner)
    def my_flow():
        return slow_once()

    assert my_flow() == "in time"
    assert len(attempts) >= 2
    assert not gate.is_set()


def test_a_run_that_timed_out_where_no_signal_can_stop_it_is_tried_again(fake_clock):
    attempts, results = [], []

    @task(timeout_seconds=60, retries=1)
    def slow_once():
        attempts.append(1)
        if len(attempts) == 1:
            fake_clock.advance(61)
        return len(attempts)

    @flow(task_runner="sequential")
    def my_flow():
        return slow_once()

    thread = threading.Thread(target=lambda: results.append(my_flow()), daemon=True)
    thread.start()
    thread.join(LIMIT)
    assert results == [2]


def test_an_async_run_that_timed_out_is_tried_again(run_async, task_runner):
    attempts = []

    @task(timeout_seconds=0.05, retries=TRIES)
    async def slow_once():
        attempts.append(1)
        if len(attempts) == 1:
            await anyio.sleep(600)
        return "in time"

    @flow(task_runner=task_runner)
    async def my_flow():
        return await slow_once()

    assert run_async(my_flow) == "in time"
    assert len(attempts) >= 2


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_time_limit_ends_with_its_attempt_and_cuts_no_delay_short(task_runner, kind):
    begun = []

    def fails():
        begun.append(time.monotonic())
        raise ValueError("no such luck")

    async def fails_async():
        fails()

    failing = task(timeout_seconds=0.05, retries=2, retry_delay_seconds=0.2)(fails if kind == "sync" else fails_async)

    @flow(task_runner=task_runner)
    def my_flow():
        future = failing()
        future.wait()
        return future.task_run.run_count

    assert my_flow() == 3
    # However busy the machine, no delay ends too early; an attempt may be over its limit before it begins.
    assert all(later - earlier > 0.19 for earlier, later in pairwise(begun))


def test_waiting_for_an_upstream_does_not_count(gate, fake_clock):
    @task
    def upstream():
        gate.wait(HANGS)
        return 1

    @flow(task_runner="concurrent")
    def my_flow():
        future = add.with_options(timeout_seconds=60)(upstream())
        fake_clock.advance(61)
        assert not future.done()
        gate.set()
        return future

    assert my_flow() == 2


def test_a_run_that_timed_out_makes_its_dependents_not_ready(gate):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner="concurrent")
    def my_flow():
        return add(slow()).wait().message

    assert my_flow().endswith(f"ended as {TASK_TIMED_OUT}.")


def test_the_log_says_that_a_run_timed_out_without_a_traceback(task_runner, gate, caplog):
    @task(timeout_seconds=0.05)
    def slow():
        gate.wait(HANGS)

    @flow(task_runner=task_runner)
    def my_flow():
        return slow().wait().name

    assert my_flow() == "TimedOut"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    name = f"slow-{slow.short_hash}-0"
    assert [record.message for record in errors] == [f"Task run '{name}' finished in state {TASK_TIMED_OUT}"]
    assert errors[0].exc_info is None


def test_many_deadlines_are_kept(gate):
    @task
    def slow(seconds):
        gate.wait(HANGS)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=20))
    def my_flow():
        futures = [slow.with_options(timeout_seconds=0.01 * n)(n) for n in (9, 3, 7, 1, 5)]
        return [future.wait().name for future in futures]

    assert my_flow() == ["TimedOut"] * 5
    assert not gate.is_set()


# -- flows


def test_a_sync_flow_that_takes_too_long_has_timed_out(task_runner, gate):
    @flow(task_runner=task_runner, timeout_seconds=0.05)
    def my_flow():
        gate.wait(HANGS)
        return 5

    assert repr(my_flow(return_state=True)) == FLOW_TIMED_OUT
    assert not gate.is_set()
    with pytest.raises(RunTimeout, match="^Flow run exceeded timeout of 0.05 seconds$"):
        my_flow()


def test_an_async_flow_that_takes_too_long_has_timed_out(run_async, task_runner):
    @flow(task_runner=task_runner, timeout_seconds=0.05)
    async def my_flow():
        await anyio.sleep(600)

    async def main():
        with pytest.raises(RunTimeout, match="^Flow run exceeded timeout of 0.05 seconds$"):
            await my_flow()
        return repr(await my_flow(return_state=True))

    assert run_async(main) == FLOW_TIMED_OUT


def test_a_flow_whose_tasks_take_too_long_has_timed_out_and_leaves_them(gate):
    kept = []

    @task
    def slow():
        gate.wait(HANGS)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1), timeout_seconds=0.05)
    def my_flow():
        kept.extend([slow(), slow(), add(slow())])

    assert repr(my_flow(return_state=True)) == FLOW_TIMED_OUT
    assert not gate.is_set()
    assert all(future.done() for future in kept)
    assert kept[1].state.is_cancelled()
    assert not any(future.state.is_completed() for future in kept)


def test_a_flow_whose_async_tasks_take_too_long_has_timed_out_and_stops_them(run_async, task_runner):
    ended = []

    @task
    async def slow():
        try:
            await anyio.sleep(600)
        finally:
            ended.append(1)

    @flow(task_runner=task_runner, timeout_seconds=0.05)
    async def my_flow():
        slow()
        await anyio.sleep(600)

    async def main():
        return repr(await my_flow(return_state=True))

    assert run_async(main) == FLOW_TIMED_OUT
    assert ended == [1]


def test_a_flow_that_is_quick_enough_completes(task_runner, run_async):
    @flow(task_runner=task_runner, timeout_seconds=600)
    def my_flow():
        return add(1)

    @flow(task_runner=task_runner, timeout_seconds=600)
    async def async_flow():
        return await add(1)

    assert my_flow() == 2
    assert run_async(async_flow) == 2


def test_a_flow_in_another_thread_has_timed_out_at_its_deadline_too(gate):
    states = []

    @task
    def slow():
        gate.wait(HANGS)

    @flow(task_runner="concurrent", timeout_seconds=0.05)
    def my_flow():
        slow().wait()

    thread = threading.Thread(target=lambda: states.append(my_flow(return_state=True)))
    thread.start()
    thread.join(LIMIT)
    assert not gate.is_set()
    assert [repr(state) for state in states] == [FLOW_TIMED_OUT]


def test_a_flow_that_timed_out_is_tried_again(task_runner, gate):
    attempts = []

    @flow(task_runner=task_runner, timeout_seconds=0.05, retries=TRIES)
    def my_flow():
        attempts.append(1)
        if len(attempts) == 1:
            gate.wait(HANGS)
        return add(1)

    assert my_flow() == 2
    assert len(attempts) >= 2
    assert not gate.is_set()


def test_a_subflow_that_timed_out_raises_in_the_flow_around_it(task_runner, gate):
    @flow(timeout_seconds=0.05)
    def inner():
        gate.wait(HANGS)

    @flow(task_runner=task_runner)
    def outer():
        with pytest.raises(RunTimeout, match="^Flow run exceeded timeout of 0.05 seconds$"):
            inner()
        return add(1)

    assert outer() == 2


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="this system has no SIGALRM")
def test_an_application_that_uses_the_alarm_signal_keeps_it():
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    try:

        @task(timeout_seconds=0.05)
        def slow():
            time.sleep(0.1)
            return 1

        @flow(task_runner="sequential")
        def my_flow():
            return slow().wait().name

        assert my_flow() == "TimedOut"
        signal.raise_signal(signal.SIGALRM)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGALRM, before)
