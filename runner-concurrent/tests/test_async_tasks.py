from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from riverrun import flow, task
from riverrun.task_runners import ConcurrentTaskRunner
from riverrun.testing import within

if TYPE_CHECKING:
    from typing import Any as Held  # the fixture in conftest.py

    import pytest

LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""
NOT_YET = 0.2
"""A time limit for what does not end by itself, in seconds."""


def test_the_async_tasks_of_a_sync_flow_share_one_loop_on_one_thread_of_the_runner():
    @task
    async def place():
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), threading.get_ident()

    @flow(task_runner="concurrent")
    def looking():
        return {future.result() for future in [place() for _ in range(20)]}

    ((loop, thread),) = within(LIMIT, looking)
    assert loop.is_closed()
    assert thread != threading.get_ident()


def test_async_tasks_need_no_worker(held: Held):
    hold = task(held)

    @task
    async def quick():
        await asyncio.sleep(0)
        return "quick"

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def busy():
        hold()
        held.wait_for(1)
        results = [future.result() for future in [quick() for _ in range(50)]]
        held.release.set()
        return results

    assert within(LIMIT, busy) == ["quick"] * 50


def test_the_async_tasks_of_an_async_flow_run_on_the_flows_own_loop():
    @task
    async def place():
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), threading.get_ident()

    @flow(task_runner="concurrent")
    async def looking():
        return {await future for future in [place() for _ in range(20)]}, asyncio.get_running_loop()

    found, loop = asyncio.run(looking())
    assert found == {(loop, threading.get_ident())}


def test_a_task_that_a_waiting_thread_takes_over_sees_the_context_of_its_call():
    flavour = ContextVar("flavour", default="none")

    @task
    def taste():
        return flavour.get()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def tasting():
        futures = []
        for value in range(50):
            flavour.set(value)
            futures.append(taste())
        flavour.set("later")
        return [future.result() for future in reversed(futures)]

    assert within(LIMIT, tasting) == list(reversed(range(50)))


def test_an_async_task_that_blocks_its_loop_is_timed_out_all_the_same(held: Held):
    @task(timeout_seconds=NOT_YET)
    async def blocking():
        held()

    @flow(task_runner="concurrent")
    def blocked():
        name = blocking().wait(LIMIT / 2).name
        held.release.set()
        return name

    assert within(LIMIT, blocked) == "TimedOut"


def test_a_loop_that_a_coroutine_blocks_is_left_behind_with_a_warning(held: Held, caplog: pytest.LogCaptureFixture):
    @task
    async def blocking():
        held()

    @flow(task_runner="concurrent", timeout_seconds=NOT_YET)
    def blocked():
        blocking().result()

    before = set(threading.enumerate())
    assert within(LIMIT, lambda: blocked(return_state=True)).name == "TimedOut"
    (warning,) = [record.getMessage() for record in caplog.records if record.name == "riverrun.task_runners"]
    assert warning == (
        "An async task blocks the event loop of the concurrent task runner: its thread is left behind. Do not "
        "call blocking functions such as time.sleep() in async tasks."
    )
    held.release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_sync_flow_works_where_a_loop_is_running_as_in_a_notebook():
    @task
    async def add_async(x: int, y: int):
        await asyncio.sleep(0)
        return x + y

    @flow(task_runner="concurrent")
    def cell():
        return add_async(add_async(1, 2).result(), add_async(3, 4)).result()

    async def notebook():
        return cell()

    assert within(LIMIT, lambda: asyncio.run(notebook())) == 10
