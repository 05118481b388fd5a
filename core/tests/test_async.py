"""Every mix of sync and async flows and tasks, under asyncio and under trio."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import anyio
import anyio.lowlevel
import pytest
import sniffio
from riverrun import BlockingCallError, flow, task
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def double(x: int) -> int:
    return 2 * x


@task
async def triple(x: int) -> int:
    await anyio.lowlevel.checkpoint()
    return 3 * x


@task
async def broken() -> None:
    await anyio.lowlevel.checkpoint()
    raise ValueError("text")


def test_a_sync_flow_calls_sync_and_async_tasks(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return double(triple(double(1))).result(), triple(1), double.map(triple.map([1, 2]))

    assert my_flow() == (12, 3, [6, 12])


def test_an_async_flow_calls_sync_and_async_tasks(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        return await double(triple(double(1))), triple(1), await double.map(triple.map([1, 2]))

    assert run_async(my_flow) == (12, 3, [6, 12])


def test_awaiting_a_future_gives_the_result_or_raises(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        future = triple(1)
        assert await future == 3
        assert await future == 3
        assert future.result() == 3
        with pytest.raises(ValueError, match="^text$"):
            await broken()
        return 1

    assert run_async(my_flow) == 1


def test_an_async_flow_gives_its_value_when_it_is_awaited(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow(n: int):
        return [triple(n), 5]

    async def main():
        state = await my_flow(2, return_state=True)
        return await my_flow("1"), state.result(), repr(state)

    assert run_async(main) == ([3, 5], [6, 5], "Completed(message='All states completed.', type=COMPLETED)")


def test_an_async_flow_waits_for_what_nobody_kept(run_async, task_runner):
    done = []

    @task
    async def slow():
        await anyio.sleep(0.02)
        done.append(1)

    @flow(task_runner=task_runner)
    async def my_flow():
        for _ in range(3):
            slow()

    assert run_async(my_flow) is None
    assert done == [1, 1, 1]


def test_an_async_flow_fails_if_one_that_nobody_kept_failed(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        broken()
        triple(1)

    async def main():
        with pytest.raises(ValueError, match="^text"):
            await my_flow()
        return repr(await my_flow(return_state=True))

    assert run_async(main) == "Failed(message='1/2 states failed.', type=FAILED)"


def test_async_tasks_of_an_async_flow_run_on_its_loop_and_overlap(run_async):
    @task
    async def meeting(barrier, mine):
        barrier[mine].set()
        await barrier[1 - mine].wait()
        return threading.get_ident(), sniffio.current_async_library()

    @flow(task_runner="concurrent")
    async def my_flow():
        barrier = [anyio.Event(), anyio.Event()]  # belong to this loop: they would not work on another
        results = [await future for future in [meeting(barrier, 0), meeting(barrier, 1)]]
        return results == [(threading.get_ident(), sniffio.current_async_library())] * 2

    assert run_async(my_flow) is True


def test_sync_tasks_of_an_async_flow_run_beside_its_loop(run_async):
    @task
    def thread():
        return threading.get_ident()

    @flow(task_runner="concurrent")
    async def my_flow():
        return await thread() != threading.get_ident()

    assert run_async(my_flow) is True


def test_a_slow_sync_task_does_not_hold_up_the_loop(run_async):
    @task
    def until(event):
        assert event.wait(10)
        return 1

    @flow(task_runner="concurrent")
    async def my_flow():
        event = threading.Event()
        future = until(event)
        await anyio.sleep(0.01)
        assert not future.done()
        event.set()
        return await future

    assert run_async(my_flow) == 1


def test_under_the_sequential_runner_one_task_runs_at_a_time_in_the_order_of_the_calls(run_async):
    order, threads = [], set()

    @task
    async def step(n):
        threads.add(threading.get_ident())
        order.append((n, "begins"))
        await anyio.sleep(0.001)
        order.append((n, "ends"))

    @task
    def sync_step(n):
        threads.add(threading.get_ident())
        order.extend([(n, "begins"), (n, "ends")])

    @flow(task_runner="sequential")
    async def my_flow():
        async with anyio.create_task_group() as group:
            for submit, n in [(step, 0), (sync_step, 1), (step, 2), (sync_step, 3)]:
                submit(n)
                group.start_soon(anyio.lowlevel.checkpoint)
        for n in range(4, 8):
            (step if n % 2 else sync_step)(n)
        return threading.get_ident()

    ident = run_async(my_flow)
    assert order == [(n, what) for n in range(8) for what in ("begins", "ends")]
    assert threads == {ident}


def test_under_the_sequential_runner_sync_and_async_tasks_of_a_sync_flow_run_in_its_thread():
    order, threads = [], set()

    @task
    async def step(n):
        threads.add(threading.get_ident())
        order.append(n)
        await anyio.lowlevel.checkpoint()
        order.append(n)

    @flow(task_runner="sequential")
    def my_flow():
        futures = [step(n) for n in range(3)]
        return all(future.done() for future in futures)

    assert my_flow() is True
    assert order == [0, 0, 1, 1, 2, 2]
    assert threads == {threading.get_ident()}


def test_async_tasks_of_a_sync_flow_share_one_loop(task_runner):
    @task
    async def loop():
        return asyncio.get_running_loop()

    @flow(task_runner=task_runner)
    def my_flow():
        return [future.result() for future in [loop(), loop(), loop()]]

    assert len(set(my_flow())) == 1


def test_blocking_on_the_loop_of_an_async_flow_names_await(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        future = triple(1)
        with pytest.raises(BlockingCallError) as caught:
            future.result()
        assert str(caught.value) == (
            f"`future.result()` would block the event loop of the async flow, and task run '{future.name}' needs that "
            "loop to finish. Write `await future`."
        )
        assert isinstance(caught.value, RuntimeError)
        assert await future == 3
        return future.result()

    assert run_async(my_flow) == 3


def test_a_sync_subflow_that_needs_an_unfinished_future_of_the_loop_names_await(run_async):
    @flow
    def inner(n: int):
        return n

    @flow(task_runner="concurrent")
    async def my_flow():
        future = triple(1)
        with pytest.raises(BlockingCallError) as caught:
            inner(future)
        assert str(caught.value).endswith("Write `inner(await future)`.")
        return inner(await future)

    async def main():
        return (await my_flow(return_state=True)).name

    assert run_async(main) == "Completed"


def test_a_sync_flow_under_a_running_loop_may_block(run_async, task_runner):
    @flow(task_runner=task_runner)
    def notebook_flow():
        return double(triple(1)).result()

    async def main():
        return notebook_flow()

    assert run_async(main) == 6


def test_a_plain_thread_may_block_while_the_loop_runs(run_async):
    @flow(task_runner="concurrent")
    async def my_flow():
        future = triple(1)
        return await anyio.to_thread.run_sync(future.result)

    assert run_async(my_flow) == 3


def test_a_future_can_be_awaited_by_many(run_async):
    @flow(task_runner="concurrent")
    async def my_flow():
        future, results = triple(1), []

        async def wait():
            results.append(await future)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(wait)
        return results

    assert run_async(my_flow) == [3] * 5


def test_a_done_future_can_be_awaited_outside_of_its_flow(run_async, task_runner):
    kept = []

    @flow(task_runner=task_runner)
    def my_flow():
        kept.append(double(1))

    my_flow()

    async def main():
        return await kept[0]

    assert run_async(main) == 2


def test_async_flows_may_overlap(run_async):
    @flow(task_runner="concurrent")
    async def my_flow(n: int):
        return await triple(n)

    async def main():
        results = {}

        async def run(n):
            results[n] = await my_flow(n)

        async with anyio.create_task_group() as group:
            for n in range(5):
                group.start_soon(run, n)
        return results

    assert run_async(main) == {n: 3 * n for n in range(5)}


def test_asyncio_gather_and_timeouts_take_futures_through_await():
    @flow(task_runner="concurrent")
    async def my_flow():
        async def value(future):
            return await future

        return await asyncio.gather(*[asyncio.wait_for(value(triple(n)), 10) for n in range(3)])

    assert asyncio.run(my_flow()) == [0, 3, 6]


def test_giving_up_waiting_leaves_the_run_alone(run_async):
    @task
    async def until(event):
        await event.wait()
        return 1

    @flow(task_runner="concurrent")
    async def my_flow():
        event = anyio.Event()
        future = until(event)
        with anyio.move_on_after(0.01) as scope:
            await future
        assert scope.cancelled_caught
        assert not future.done()
        event.set()
        return await future

    assert run_async(my_flow) == 1


def test_a_task_called_in_an_async_task_runs_in_place(run_async, task_runner):
    @task
    async def outer(n):
        inner = triple(n)
        assert inner.done()
        return double(inner).result()

    @flow(task_runner=task_runner)
    async def my_flow():
        return await outer(1)

    @flow(task_runner=task_runner)
    def sync_flow():
        return outer(1)

    assert run_async(my_flow) == sync_flow() == 6


def test_an_async_flow_is_called_in_a_task(run_async, task_runner):
    @flow
    async def inner(n: int):
        return await triple(n)

    @task
    def sync_task(n):
        return inner(n)

    @task
    async def async_task(n):
        return await inner(n)

    @flow(task_runner=task_runner)
    async def my_flow():
        return await sync_task(1), await async_task(2)

    @flow(task_runner=task_runner)
    def sync_flow():
        return sync_task(1).result(), async_task(2).result()

    assert run_async(my_flow) == sync_flow() == (3, 6)


COLOUR: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


def test_context_variables_of_the_caller_are_seen_in_the_task(run_async, task_runner):
    @task
    def sync_colour(upstream=None):
        colour = COLOUR.get()
        COLOUR.set("changed in the task")
        return colour

    @task
    async def async_colour(upstream=None):
        return COLOUR.get()

    @flow(task_runner=task_runner)
    async def my_flow():
        COLOUR.set("red")
        first = [sync_colour(), async_colour()]
        later = [sync_colour(first[0]), async_colour(first[1])]
        COLOUR.set("blue")
        values = [await future for future in [*first, *later]]
        return [*values, COLOUR.get()]

    assert run_async(my_flow) == ["red", "red", "red", "red", "blue"]


def test_a_body_that_raises_an_exception_group_fails_with_it(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        async def fail():
            raise ValueError("text")

        async with anyio.create_task_group() as group:
            group.start_soon(fail)

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await my_flow()
        return [str(error) for error in caught.value.exceptions]

    assert run_async(main) == ["text"]


def test_an_async_flow_that_raises_still_waits_for_everything(run_async, task_runner):
    done = []

    @task
    async def slow():
        await anyio.sleep(0.01)
        done.append(1)

    @flow(task_runner=task_runner)
    async def my_flow():
        slow()
        raise KeyError("key")

    async def main():
        with pytest.raises(KeyError):
            await my_flow()

    run_async(main)
    assert done == [1]


def test_a_thousand_waits_of_a_sync_flow_overlap():
    @task
    async def wait():
        await asyncio.sleep(0.01)
        return 1

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def my_flow():
        return sum(future.result() for future in [wait() for _ in range(1_000)])

    assert my_flow() == 1_000
