from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from contextvars import copy_context

import anyio
import anyio.lowlevel
import pytest
from riverrun import Task, TaskRunnerOptionError, flow, task
from riverrun.task_runners import SequentialTaskRunner

LIBRARIES = ["asyncio", "trio"]
LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""


def test_tasks_run_one_after_the_other_in_the_order_of_the_calls():
    events = []

    @task
    def step(number: int):
        events.append(f"begin {number}")
        events.append(f"end {number}")

    @task
    async def step_async(number: int):
        events.append(f"begin {number}")
        await anyio.lowlevel.checkpoint()
        events.append(f"end {number}")

    @flow(task_runner="sequential")
    def steps():
        for number in range(6):
            (step_async if number % 2 else step)(number)
            events.append(f"called {number}")

    steps()
    assert events == [f"{what} {number}" for number in range(6) for what in ("begin", "end", "called")]


def test_every_task_runs_in_the_thread_of_the_flow():
    @task
    def thread():
        return threading.get_ident()

    @task
    async def thread_async():
        return threading.get_ident()

    @flow(task_runner="sequential")
    def threads():
        return {thread().result(), thread_async().result()}

    assert threads() == {threading.get_ident()}


def test_a_task_is_tried_again_before_the_next_one_begins():
    events = []

    @task(retries=2, retry_delay_seconds=0.01)
    def shaky():
        events.append("attempt")
        if len(events) < 3:
            raise ConnectionError

    @task
    def following():
        events.append("following")

    @flow(task_runner="sequential")
    def steps():
        shaky()
        following()

    steps()
    assert events == ["attempt", "attempt", "attempt", "following"]


def test_the_async_tasks_of_a_sync_flow_share_one_loop():
    loops = []

    @task
    async def look():
        loops.append(asyncio.get_running_loop())

    @flow(task_runner="sequential")
    def looking():
        for _ in range(3):
            look()

    looking()
    assert loops[0] is loops[1] is loops[2]
    assert loops[0].is_closed()


@pytest.mark.parametrize("in_a_task_group", [False, True], ids=["plain", "in_a_task_group"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_tasks_of_an_async_flow_run_one_at_a_time_in_the_order_of_the_calls(library: str, in_a_task_group: bool):
    calls, events = [], []

    @task
    def step(number: int):
        events.append(f"begin {number}")
        events.append(f"end {number}")

    @task
    async def step_async(number: int):
        events.append(f"begin {number}")
        await anyio.sleep(0.001)
        events.append(f"end {number}")

    def call(number: int):
        calls.append(number)
        return (step_async if number % 2 else step)(number)

    async def call_and_wait(number: int):
        await call(number)

    @flow(task_runner="sequential")
    async def steps():
        if not in_a_task_group:
            for number in range(8):
                call(number)
            return
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(call_and_wait, number)  # trio begins with any of them

    anyio.run(steps, backend=library)
    assert sorted(calls) == list(range(8))
    assert events == [f"{what} {number}" for number in calls for what in ("begin", "end")]


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_tasks_of_a_task_group_never_overlap(library: str):
    running = 0
    overlaps = []

    @task
    async def step():
        nonlocal running
        running += 1
        overlaps.append(running)
        await anyio.sleep(0.001)
        running -= 1

    async def call():
        await step()

    @flow(task_runner="sequential")
    async def steps():
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(call)

    anyio.run(steps, backend=library)
    assert overlaps == [1] * 8


def test_the_tasks_of_an_async_flow_run_on_the_flows_own_loop_and_thread():
    @task
    def thread():
        return threading.get_ident()

    @task
    async def place():
        return threading.get_ident(), asyncio.get_running_loop()

    @flow(task_runner="sequential")
    async def looking():
        return [await thread(), *(await place())], [threading.get_ident()] * 2 + [asyncio.get_running_loop()]

    found, expected = asyncio.run(looking())
    assert found == expected


def test_a_sync_flow_works_where_a_loop_is_running_as_in_a_notebook():
    @task
    def add(x: int, y: int):
        return x + y

    @task
    async def add_async(x: int, y: int):
        await asyncio.sleep(0)
        return x + y

    @flow(task_runner="sequential")
    def cell():
        return add(add_async(1, 2).result(), add_async(3, 4)).result()

    async def notebook():
        return cell()

    assert asyncio.run(notebook()) == 10


def test_two_threads_of_a_flow_may_run_async_tasks_at_the_same_time():
    has_begun, may_end = threading.Event(), threading.Event()

    @task
    async def held():
        has_begun.set()
        return await asyncio.to_thread(may_end.wait, LIMIT)

    @task
    async def beside():
        return "beside"

    @flow(task_runner="sequential")
    def two_threads():
        futures = []
        thread = threading.Thread(target=copy_context().run, args=[lambda: futures.append(held())])
        thread.start()
        assert has_begun.wait(LIMIT)
        futures.append(beside())
        may_end.set()
        thread.join()
        return [future.result() for future in futures]

    assert two_threads() == ["beside", True]


def test_the_traceback_of_a_failure_begins_and_ends_in_user_code():
    def helper():
        raise ValueError("no disk")

    @task
    def save():
        helper()

    @task
    async def save_async():
        helper()

    @flow(task_runner="sequential")
    def saving(kind: Task[[], None]):
        kind().result()

    for kind in (save, save_async):
        with pytest.raises(ValueError, match="no disk") as caught:
            saving(kind)
        frames = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert frames[-2:] == [kind.name, "helper"]


def test_the_stack_below_a_task_leads_to_the_call_in_the_flow_so_a_debugger_can_go_up():
    @task
    def stop_here():
        frame, names = sys._getframe(), []
        while frame is not None:
            names.append(frame.f_code.co_name)
            frame = frame.f_back
        return names

    @flow(task_runner="sequential")
    def debugged():
        return stop_here()

    names = debugged()
    me = "test_the_stack_below_a_task_leads_to_the_call_in_the_flow_so_a_debugger_can_go_up"
    assert names[0] == "stop_here"
    assert [name for name in names if name in ("stop_here", "debugged", me)] == ["stop_here", "debugged", me]


def test_it_has_no_options():
    with pytest.raises(
        TaskRunnerOptionError, match=r"`SequentialTaskRunner` has no option `max_workers`\..* It has no options\."
    ):
        SequentialTaskRunner(max_workers=2)
