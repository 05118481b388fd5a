"""`wait`, `as_completed` and `gather`."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from riverrun import BlockingCallError, ResultTimeout, allow_failure, as_completed, flow, gather, task, wait

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def double(x: int) -> int:
    return 2 * x


@task
def broken(text: str) -> None:
    raise ValueError(text)


@task
def until(event: threading.Event, value: Any = None) -> Any:
    assert event.wait(10)
    return value


def test_wait_gives_the_finished_and_the_unfinished_in_the_order_given():
    event = threading.Event()

    @flow(task_runner="concurrent")
    def my_flow():
        slow, quick, failing = until(event), double(1), broken("text")
        wait([quick, failing])
        done, not_done = result = wait([failing, slow, quick], timeout=0.01)
        assert done == [failing, quick]
        assert not_done == [slow]
        assert result.done is done
        assert result.not_done is not_done
        event.set()
        assert wait([slow, quick]) == ([slow, quick], [])
        return 1

    assert my_flow() == 1


def test_wait_takes_any_iterable_and_nothing(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        assert wait([]) == ([], [])
        assert wait([], timeout=1) == ([], [])
        assert len(wait(double(x) for x in range(3)).done) == 3
        return len(wait(double.map([1, 2, 3]), timeout=10).done)

    assert my_flow() == 3


def test_as_completed_gives_futures_as_they_finish():
    events = [threading.Event() for _ in range(3)]

    @flow(task_runner="concurrent")
    def my_flow():
        futures = [until(event, number) for number, event in enumerate(events)]
        order = []
        events[2].set()
        for future in as_completed(futures):
            order.append(future.result())
            if future.result() == 2:
                events[0].set()
            if future.result() == 0:
                events[1].set()
        return order

    assert my_flow() == [2, 0, 1]


def test_as_completed_gives_the_finished_ones_in_the_order_given(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        futures = [double(x) for x in range(5)]
        wait(futures)
        return [future.result() for future in as_completed(futures)]

    assert my_flow() == [0, 2, 4, 6, 8]


def test_as_completed_gives_failures_too(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return sorted(future.state.name for future in as_completed([broken("text"), double(1)]))

    assert my_flow() == ["Completed", "Failed"]


def test_as_completed_gives_up_when_its_time_is_over():
    event = threading.Event()

    @flow(task_runner="concurrent")
    def my_flow():
        slow, quick = until(event), double(1)
        quick.wait()
        seen = []
        with pytest.raises(ResultTimeout) as caught:  # noqa: PT012 - an iteration raises midway
            for future in as_completed([slow, quick], timeout=0.01):
                seen.append(future)  # noqa: PERF402
        assert str(caught.value) == "1 of 2 futures were not finished after 0.01 seconds. They go on."
        assert seen == [quick]
        event.set()
        return slow.wait().name

    assert my_flow() == "Completed"


def test_as_completed_of_nothing_gives_nothing(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return list(as_completed([]))

    assert my_flow() == []


@pytest.mark.parametrize("timeout", [None, 10])
def test_async_for_gives_futures_as_they_finish(run_async, task_runner, timeout):
    @flow(task_runner=task_runner)
    async def my_flow():
        return sorted([await future async for future in as_completed(double.map(range(5)), timeout=timeout)])

    assert run_async(my_flow) == [0, 2, 4, 6, 8]


def test_async_for_lets_tasks_finish_between_its_steps(run_async):
    events = {}

    @task
    async def async_until(number):
        await events[number].wait()
        return number

    @flow(task_runner="concurrent")
    async def my_flow():
        events.update({number: anyio.Event() for number in range(3)})
        order = []
        events[2].set()
        async for future in as_completed([async_until(number) for number in range(3)]):
            order.append(await future)
            if order[-1] == 2:
                events[0].set()
            if order[-1] == 0:
                events[1].set()
        return order

    assert run_async(my_flow) == [2, 0, 1]


def test_async_for_gives_up_when_its_time_is_over(run_async):
    @task
    async def forever(event):
        await event.wait()

    @flow(task_runner="concurrent")
    async def my_flow():
        event = anyio.Event()
        text = "^1 of 1 futures were not finished after 0.01 seconds. They go on.$"
        with pytest.raises(ResultTimeout, match=text):  # noqa: PT012 - an iteration raises
            async for _ in as_completed([forever(event)], timeout=0.01):
                pytest.fail("nothing was finished")
        event.set()
        return 1

    assert run_async(my_flow) == 1


@dataclass
class Point:
    x: Any


def test_gather_puts_results_in_the_places_of_futures(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        nested = {"one": double(1), "more": [double(2), (double(3), 5)], "point": Point(double(4)), "text": "text"}
        return gather(nested), gather(double(5)), gather(double.map([1, 2])), gather(5), gather([])

    assert my_flow() == ({"one": 2, "more": [4, (6, 5)], "point": Point(8), "text": "text"}, 10, [2, 4], 5, [])


def test_gather_reads_an_iterator_to_its_end(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return gather(double(x) for x in range(3))

    assert my_flow() == [0, 2, 4]


def test_gather_raises_the_first_failure_in_the_order_of_the_data():
    event = threading.Event()

    @task
    def failing_late():
        assert event.wait(10)
        raise ValueError("first in the data")

    @flow(task_runner="concurrent")
    def my_flow():
        late, early = failing_late(), broken("second in the data")
        early.add_done_callback(lambda _: event.set())
        with pytest.raises(ValueError, match="^first in the data$"):
            gather([double(1), late, early])
        return 1

    assert my_flow() == 1


def test_gather_gives_the_exception_of_what_may_fail(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return gather([double(1), allow_failure(broken("text"))])

    value, error = my_flow()
    assert (value, str(error)) == (2, "text")


def test_gather_is_awaited_in_an_async_flow(run_async, task_runner):
    @flow(task_runner=task_runner)
    async def my_flow():
        with pytest.raises(ValueError, match="^text$"):
            await gather([double(1), broken("text")])
        return await gather({"one": double(1), "more": [double(2)]})

    assert run_async(my_flow) == {"one": 2, "more": [4]}


@pytest.mark.parametrize(
    ("use", "blocking", "instead"),
    [
        (lambda f: f.result(), "future.result()", "await future"),
        (lambda f: f.result(timeout=1), "future.result()", "await future"),
        (lambda f: f.wait(), "future.wait()", "await future"),
        (lambda f: wait([f]), "riverrun.wait()", "await riverrun.gather(futures)"),
        (lambda f: list(as_completed([f])), "for future in as_completed()", "async for future in as_completed()"),
    ],
)
def test_what_would_block_the_loop_of_an_async_flow_says_what_to_write(run_async, use, blocking, instead):
    @task
    async def forever(event):
        await event.wait()

    @flow(task_runner="concurrent")
    async def my_flow():
        event = anyio.Event()
        future = forever(event)
        with pytest.raises(BlockingCallError) as caught:
            use(future)
        event.set()
        assert str(caught.value) == (
            f"`{blocking}` would block the event loop of the async flow, and task run '{future.name}' needs that loop "
            f"to finish. Write `{instead}`."
        )
        await future
        use(future)  # what is done blocks nothing

    run_async(my_flow)


def test_the_results_of_a_map_would_block_the_loop_too(run_async):
    @flow(task_runner="concurrent")
    async def my_flow():
        event = threading.Event()
        futures = until.map([event, event])
        with pytest.raises(BlockingCallError, match=r"^`futures.result\(\)` would block .* Write `await futures`.$"):
            futures.result()
        event.set()
        await futures
        return futures.result()

    assert run_async(my_flow) == [None, None]
