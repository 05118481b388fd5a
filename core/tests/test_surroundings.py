"""What observers want to be around the functions of flows and tasks: here, on a loop, and where calls are pickled."""

from __future__ import annotations

import functools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import anyio.lowlevel
import pytest
from riverrun import flow, hookimpl, observers, task
from riverrun._calls import TaskCall, TaskScope
from riverrun.abc import Concurrency, TaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")

around: ContextVar[str] = ContextVar("around", default="nothing")
left: list[str] = []


@contextmanager
def marked(mark: str):
    token = around.set(mark)
    try:
        yield
    finally:
        around.reset(token)
        left.append(mark)


class Marks:
    """Puts a mark around each run, with its name and attempt in it."""

    @hookimpl
    def riverrun_around_flow_run(self, event):
        return functools.partial(marked, f"{event.flow_name} {event.attempt}")

    @hookimpl
    def riverrun_around_task_run(self, event):
        return functools.partial(marked, f"{event.task_name} {event.attempt}")


@pytest.fixture(autouse=True)
def _marks():
    left.clear()
    with observers.register(Marks()):
        yield


@task
def look() -> str:
    return around.get()


@task
async def look_later() -> str:
    await anyio.lowlevel.checkpoint()
    return around.get()


@task(retries=1)
def look_again() -> str:
    if around.get().endswith("1"):
        raise ValueError
    return around.get()


@task(timeout_seconds=30)
def look_within_a_time_limit() -> str:
    return around.get()


class PackedTaskRunner(TaskRunner):
    """Sends calls as it would to other processes: as bytes. The workers are threads."""

    concurrency = Concurrency.PARALLEL

    def start(self):
        return _Pickling(2)


class _Pickling(ThreadPoolExecutor):
    def submit(self, call):
        return super().submit(pickle.loads(pickle.dumps(call)))  # noqa: S301 - made in the line itself


@pytest.fixture(params=["sequential", "concurrent", "packed"])
def runner(request):
    return PackedTaskRunner() if request.param == "packed" else request.param


def test_a_mark_is_around_the_function_of_a_task_in_each_attempt(runner):
    @flow(task_runner=runner)
    def looks():
        futures = [look(), look_later(), look_again(), look_within_a_time_limit(), look.map([])]
        return futures[0].result(), futures[1].result(), futures[2].result(), futures[3].result()

    assert looks() == ("look 1", "look_later 1", "look_again 2", "look_within_a_time_limit 1")
    assert around.get() == "nothing"
    assert sorted(left) == sorted(
        ["look 1", "look_later 1", "look_again 1", "look_again 2", "look_within_a_time_limit 1", "looks 1"]
    )


def test_a_mark_is_around_the_function_of_a_flow():
    @flow(task_runner="sequential")
    def inner():
        return around.get()

    @flow(task_runner="sequential")
    def outer():
        return around.get(), inner(), around.get()

    assert outer() == ("outer 1", "inner 1", "outer 1")


def test_marks_are_around_the_functions_of_async_flows(run_async, runner):
    @flow(task_runner=runner)
    async def looks():
        return around.get(), await look_later(), await look()

    assert run_async(looks) == ("looks 1", "look_later 1", "look 1")


def test_a_task_that_is_called_in_a_task_is_inside_its_mark(runner):
    @task
    def outer_task():
        return look().result()

    @flow(task_runner=runner)
    def calls():
        return outer_task().result()

    assert calls() == "outer_task 1"


def test_one_that_cannot_be_entered_is_told_and_the_run_goes_without_it(caplog, task_runner):
    def refuses():
        raise OSError("no collector")

    class Refuses:
        @hookimpl
        def riverrun_around_task_run(self, event):
            return refuses

    @flow(task_runner=task_runner)
    def looks():
        return look().result(), look().result()

    with observers.register(Refuses()):
        assert looks() == ("look 1", "look 1")
    [record] = [record for record in caplog.records if record.name == "riverrun.observers"]
    message = record.getMessage()
    assert message.startswith("What observer `Refuses` wants around run 'look-")
    assert message.endswith("could not be entered; such runs go without it.")
    assert record.task_run_name.startswith("look-")
    assert record.exc_info[1].args == ("no collector",)


def test_one_that_cannot_be_left_changes_nothing(caplog, task_runner):
    @contextmanager
    def breaks():
        yield
        raise OSError("collector gone")

    class Breaks:
        @hookimpl
        def riverrun_around_task_run(self, event):
            return breaks

    @flow(task_runner=task_runner)
    def looks():
        return look().result()

    with observers.register(Breaks()):
        assert looks() == "look 1"
    [record] = [record for record in caplog.records if record.name == "riverrun.observers"]
    assert record.getMessage().startswith("What one of the observers (Marks, Breaks) wants around run 'look-")
    assert record.getMessage().endswith("could not be left.")


def test_one_that_swallows_exceptions_swallows_none_of_a_run(task_runner):
    @contextmanager
    def swallows():
        with suppress(ValueError):
            yield

    class Swallows:
        @hookimpl
        def riverrun_around_task_run(self, event):
            return swallows

    @task
    def fails():
        raise ValueError("mine")

    @flow(task_runner=task_runner)
    def calls():
        fails()

    with observers.register(Swallows()), pytest.raises(ValueError, match="mine"):
        calls()


def test_one_that_cannot_be_pickled_is_told_and_left_out(caplog):
    lock = threading.Lock()

    class Local:
        @hookimpl
        def riverrun_around_task_run(self, event):
            return lambda: lock

    @flow(task_runner=PackedTaskRunner())
    def looks():
        return look().result()

    with observers.register(Local()):
        assert looks() == "look 1"
    [record] = [record for record in caplog.records if record.name == "riverrun.observers"]
    message = record.getMessage()
    assert message.startswith("What observer `Local` wants around run 'look-")
    assert message.endswith("cannot be pickled to travel to a worker: it is left out.")


def test_one_that_a_worker_cannot_import_is_told_and_the_run_goes_without_it():
    scope = TaskScope("look-0", None, {}, awaits=False)
    scope.surroundings = (("otel", b"cnowhere_to_be_found\nfunction\n."),)  # a pickle that names a module
    call = TaskCall(body=look, args=(), kwargs={}, scope=scope, key="look-1")
    assert call().value == "nothing"


def test_a_hook_that_raises_is_switched_off_and_the_run_goes_on(caplog, task_runner):
    asked = []

    class Broken:
        @hookimpl
        def riverrun_around_task_run(self, event):
            asked.append(event)
            raise LookupError("no span")

    @flow(task_runner=task_runner)
    def looks():
        return look().result(), look().result()

    with observers.register(Broken()):
        assert looks() == ("look 1", "look 1")
    assert len(asked) == 1
    [record] = [record for record in caplog.records if record.name == "riverrun.observers"]
    assert record.getMessage() == (
        "Observer `Broken` raised in `riverrun_around_task_run`: it is switched off for this flow run, which goes on."
    )
