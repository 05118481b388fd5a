from __future__ import annotations

import threading
from contextlib import suppress

import anyio
import anyio.lowlevel
import pytest
from riverrun import MissingContextError, NotReadyError, TaskFuture, flow, task
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def broken() -> None:
    raise ValueError("text")


@task
def thread() -> int:
    return threading.get_ident()


@flow
def inner(n: int = 1) -> int:
    return add(n)


def test_a_flow_in_a_flow_blocks_and_returns_its_value(task_runner):
    @flow(task_runner=task_runner)
    def outer():
        value = inner(5)
        assert value == 6
        return inner(inner(value))

    assert outer() == 8


def test_a_subflow_has_its_own_run_and_its_own_runner(caplog):
    @flow(task_runner="sequential")
    def in_place():
        return thread().result() == threading.get_ident()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def outer():
        return in_place()

    assert outer() is True
    started = [record.message for record in caplog.records if record.message.startswith("Starting")]
    assert started == [f"Starting task runner `{name}TaskRunner`..." for name in ("Concurrent", "Sequential")]


def test_futures_among_the_arguments_of_a_subflow_are_resolved_first(task_runner):
    @flow
    def total(numbers: list[int], more: dict[str, int], wait_here: int = 0):
        assert all(type(number) is int for number in numbers)
        return sum(numbers) + sum(more.values())

    @flow(task_runner=task_runner)
    def outer():
        return total([add(1), add(2), 3], more={"a": add(4)})

    assert outer() == 13


def test_a_subflow_whose_upstream_failed_raises_its_exception_and_does_not_run(task_runner):
    ran = []

    @flow
    def never(value):
        ran.append(1)

    @flow(task_runner=task_runner)
    def outer():
        with pytest.raises(ValueError, match="text"):
            never(broken())
        return 1

    assert outer() == 1
    assert ran == []


def test_a_failing_subflow_raises_in_the_flow_around_it(task_runner):
    @flow(flow_run_name="inside")
    def failing():
        broken()

    @flow(task_runner=task_runner)
    def outer():
        failing()

    with pytest.raises(ValueError, match="^text") as caught:
        outer()
    note = f"Task run 'broken-{broken.short_hash}-0' of flow run 'inside' failed with this exception."
    assert note in caught.value.__notes__
    state = outer(return_state=True)
    assert repr(state) == "Failed(message='Flow run encountered an exception: ValueError: text', type=FAILED)"


def test_a_failing_subflow_counts_in_the_aggregate_even_if_it_was_caught(task_runner):
    @flow
    def failing():
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def outer():
        with suppress(ValueError):
            failing()
        add(1)

    assert repr(outer(return_state=True)) == "Failed(message='1/2 states failed.', type=FAILED)"


def test_a_failing_subflow_whose_state_was_asked_for_counts_too(task_runner):
    @flow
    def failing():
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def outer(value=None):
        state = failing(return_state=True)
        assert state.is_failed()
        return value

    assert repr(outer(return_state=True)) == "Failed(message='1/1 states failed.', type=FAILED)"
    assert outer(5) == 5


def test_a_subflow_that_completes_counts_in_the_aggregate(task_runner):
    @flow(task_runner=task_runner)
    def outer():
        inner()
        add(1)

    assert repr(outer(return_state=True)) == "Completed(message='All states completed.', type=COMPLETED)"


def test_the_state_of_a_subflow_may_be_returned(task_runner):
    @flow(task_runner=task_runner)
    def outer():
        return [inner(1, return_state=True), add(5)]

    assert outer() == [2, 6]


def test_indexes_of_names_start_at_0_in_a_subflow(task_runner):
    @flow
    def names():
        return add(1).name

    @flow(task_runner=task_runner)
    def outer():
        first = add(1).name
        return [first, names(), add(1).name]

    hashed = f"add-{add.short_hash}"
    assert outer() == [f"{hashed}-0", f"{hashed}-0", f"{hashed}-1"]


# -- submit


def test_submitted_subflows_run_beside_each_other(task_runner):
    barrier = threading.Barrier(3)

    @flow
    def meeting(n: int):
        barrier.wait(10)
        return add(n)

    @flow(task_runner=task_runner)
    def outer():
        futures = [meeting.submit(1), meeting.submit(n=2)]
        assert all(isinstance(future, TaskFuture) for future in futures)
        barrier.wait(10)
        return futures

    assert outer() == [2, 3]


def test_a_submitted_subflow_takes_futures_and_gives_one(task_runner):
    @flow(task_runner=task_runner)
    def outer():
        first = add(1)
        return add(inner.submit(first), 10, wait_for=[inner.submit(1, wait_for=[first])])

    assert outer() == 13


def test_a_submitted_subflow_that_fails_is_a_failed_upstream(task_runner):
    @flow
    def failing():
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def outer():
        future = failing.submit()
        with pytest.raises(NotReadyError):
            add(future).result()
        with pytest.raises(ValueError, match="^text$"):
            future.result()

    assert repr(outer(return_state=True)) == "Failed(message='1/2 states failed.', type=FAILED)"


def test_a_flow_waits_for_submitted_subflows_that_nobody_kept(task_runner):
    gate, done = threading.Event(), []

    @flow
    def slow():
        assert gate.wait(10)
        add(1).wait()
        done.append(1)

    @flow(task_runner=task_runner)
    def outer():
        slow.submit()
        threading.Timer(0.05, gate.set).start()

    outer()
    assert done == [1]


def test_many_submitted_subflows_inside_subflows_wait_for_no_slot():
    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def nested(depth: int):
        return 1 if depth == 0 else nested.submit(depth - 1)

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def outer():
        return [nested.submit(3) for _ in range(4)]

    assert outer() == [1, 1, 1, 1]


def test_submitting_a_flow_outside_of_a_flow_says_what_to_write():
    with pytest.raises(MissingContextError) as caught:
        inner.submit(1)
    assert str(caught.value) == (
        "Flow 'inner' was submitted outside of a flow (inner.submit(...)). Call it inside a function with @flow, or "
        "run it to its end: inner(...)."
    )


def test_an_async_subflow_can_be_submitted(run_async, task_runner):
    @flow
    async def later(n: int):
        await anyio.lowlevel.checkpoint()
        return await add(n)

    @flow(task_runner=task_runner)
    async def outer():
        futures = [later.submit(n) for n in range(3)]
        return [await future for future in futures]

    @flow(task_runner=task_runner)
    def sync_outer():
        return [later.submit(n) for n in range(3)]

    assert run_async(outer) == [1, 2, 3]
    assert sync_outer() == [1, 2, 3]


# -- sync and async


def test_a_sync_subflow_in_an_async_flow_returns_its_plain_value(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def outer():
        value = inner(5)
        assert value == 6
        return value

    assert run_async(outer) == 6


def test_an_async_subflow_in_a_sync_flow_returns_its_plain_value(task_runner):
    @flow(task_runner=task_runner)
    async def async_inner(n: int):
        return await add(n)

    @flow(task_runner=task_runner)
    def outer():
        value = async_inner(5)
        assert value == 6
        return value

    assert outer() == 6


def test_an_async_subflow_in_an_async_flow_is_awaited(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def async_inner(n: int):
        return await add(n)

    @flow(task_runner=task_runner)
    async def outer():
        value = await async_inner(add(5))
        state = await async_inner(1, return_state=True)
        return value, state.result()

    assert run_async(outer) == (7, 2)


def test_async_subflows_may_overlap_in_a_task_group(run_async):
    @flow
    async def meeting(events, mine, other):
        events[mine].set()
        await events[other].wait()
        return mine

    unchecked = meeting.with_options(validate_parameters=False)

    @flow(task_runner="concurrent")
    async def outer():
        events = [anyio.Event(), anyio.Event()]
        results = []

        async def run(mine, other):
            results.append(await unchecked(events, mine, other))

        async with anyio.create_task_group() as group:
            group.start_soon(run, 0, 1)
            group.start_soon(run, 1, 0)
        return sorted(results)

    assert run_async(outer) == [0, 1]


def test_a_flow_called_in_a_task_is_a_run_of_its_own(task_runner):
    @task
    def working(n):
        return inner(n)

    @flow(task_runner=task_runner)
    def outer():
        return working.map([1, 2])

    assert outer() == [2, 3]
