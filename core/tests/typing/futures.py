"""What type checkers know of futures. Nothing here runs: mypy and pyright read it, both as strict as they can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_type

import riverrun
from riverrun import (
    State,
    TaskFuture,
    TaskFutureList,
    TaskRun,
    allow_failure,
    as_completed,
    gather,
    quote,
    task,
    unmapped,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


@task
def add(a: int, b: int) -> int:
    return a + b


@task
async def fetch(url: str) -> str:
    return url


def a_future_gives_the_value() -> None:
    future = add(1, 2)
    assert_type(future.result(), int)
    assert_type(future.result(timeout=1.5), int)
    assert_type(future.wait(timeout=1), State | None)
    assert_type(future.state, State)
    assert_type(future.done(), bool)
    assert_type(future.cancel(), bool)
    assert_type(future.name, str)
    assert_type(future.task_run_id, str)
    assert_type(future.task_run, TaskRun)


async def a_future_is_awaited() -> None:
    assert_type(await add(1, 2), int)
    assert_type(await fetch("u"), str)


def a_done_callback_gets_the_future() -> None:
    def note(future: TaskFuture[int]) -> None:
        print(future.result())

    add(1, 2).add_done_callback(note)
    add(1, 2).add_done_callback(lambda future: assert_type(future.result(), int))


def a_future_is_not_its_value() -> None:
    future = add(1, 2)
    future + 1  # type: ignore[operator]
    _: int = future  # type: ignore[assignment]
    for __ in future:  # type: ignore[attr-defined]
        pass


def a_future_of_a_narrower_type_serves_as_one_of_a_wider() -> None:
    flags: TaskFuture[bool] = task(bool)(1)
    numbers: TaskFuture[int] = flags
    anything: Sequence[TaskFuture[object]] = [numbers, fetch("u")]
    add(numbers, 1, wait_for=anything)


def a_list_of_futures_is_a_sequence() -> None:
    futures = add.map([1, 2], 3)
    assert_type(futures.result(), list[int])
    assert_type(futures.result(timeout=3), list[int])
    assert_type(futures[0], TaskFuture[int])
    assert_type(futures[1:], TaskFutureList[int])
    assert_type(len(futures), int)
    for future in futures:
        assert_type(future, TaskFuture[int])
    assert_type([future.result() for future in futures], list[int])
    done, not_done = futures.wait(timeout=1)
    assert_type(done, list[TaskFuture[int]])
    assert_type(not_done, list[TaskFuture[int]])


async def a_list_of_futures_is_awaited() -> None:
    futures = fetch.map(["u", "v"])
    assert_type(await futures, list[str])
    async for future in futures:
        assert_type(future, TaskFuture[str])


def many_futures_are_waited_for() -> None:
    done, not_done = riverrun.wait([add(1, 2), add(3, 4)], timeout=1)
    assert_type(done, list[TaskFuture[int]])
    assert_type(not_done, list[TaskFuture[int]])
    assert_type(riverrun.wait(add.map([1, 2], 3)).done, list[TaskFuture[int]])


def futures_come_as_they_are_completed() -> None:
    for future in as_completed([add(1, 2), add(3, 4)]):
        assert_type(future, TaskFuture[int])
    for future in as_completed(add.map([1, 2], 3), timeout=3):
        assert_type(future.result(), int)


async def futures_come_as_they_are_completed_in_an_async_flow() -> None:
    async for future in as_completed(fetch.map(["u", "v"])):
        assert_type(future, TaskFuture[str])
        assert_type(await future, str)


async def what_is_gathered_may_be_anything() -> None:
    # In a sync flow the results, in an async flow something to await: that cannot be seen at the call.
    assert_type(gather([add(1, 2), fetch("u")]), Any)
    assert_type(await gather({"sum": add(1, 2)}), Any)


def arguments_may_bear_a_remark() -> None:
    total = add(1, 2)
    assert_type(add.map([1, 2], unmapped(3)), TaskFutureList[int])
    assert_type(add(allow_failure(total), 3), TaskFuture[int])
    assert_type(fetch(quote("u")), TaskFuture[str])
    assert_type(unmapped([1]).value, list[int])
