from __future__ import annotations

import os
import stat
import subprocess
import sys
from datetime import timedelta
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
from riverrun import _caching, _timers, flow, task
from riverrun.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keep what is cached in a folder of the test's, and begin with an empty memory."""
    monkeypatch.setenv("RIVERRUN_HOME", str(tmp_path / "home"))
    _caching.clear()
    yield tmp_path / "home"
    _caching.clear()


@pytest.fixture
def cached_task():
    """Give a function that makes a cached task, and the list of its calls."""
    calls = []

    def double(x):
        calls.append(x)
        return 2 * x

    def make(**options):
        return task(**{"cache_key_fn": lambda context, parameters: str(parameters["x"]), **options})(double), calls

    return make


def run(task_runner, cached, *values):
    @flow(task_runner=task_runner)
    def my_flow():
        states = [cached(value).wait() for value in values]
        return [(state.name, state.result()) for state in states]

    return my_flow()


def test_a_run_with_a_known_key_takes_the_value_of_the_earlier_one(task_runner, cached_task):
    cached, calls = cached_task()
    assert run(task_runner, cached, 1, 2, 1) == [("Completed", 2), ("Completed", 4), ("Cached", 2)]
    assert run(task_runner, cached, 2) == [("Cached", 4)]
    assert calls == [1, 2]


def test_the_state_says_from_where_the_value_is(task_runner, cached_task):
    cached, _ = cached_task()

    @flow(task_runner=task_runner)
    def my_flow():
        cached(1).wait()
        future = cached(1)
        state = future.wait()
        return repr(state), state.type, future.result(), future.task_run.run_count

    text = "Cached(message=\"Value of an earlier run with cache key '1'.\", type=COMPLETED)"
    assert my_flow() == (text, "COMPLETED", 2, 0)


def test_the_key_function_gets_the_context_and_the_parameters_by_name(task_runner):
    seen = []

    def key(context, parameters):
        seen.append((context.task.name, context.task_run.name.partition("-")[0], parameters))

    @task(cache_key_fn=key)
    def add(a, b=2, *rest, **more):
        return a

    @task
    def one():
        return 1

    @flow(task_runner=task_runner)
    def my_flow():
        add(one(), c=4).wait()

    my_flow()
    assert seen == [("add", "add", {"a": 1, "b": 2, "rest": (), "more": {"c": 4}})]


def test_a_key_of_none_is_not_cached(task_runner, cached_task):
    cached, calls = cached_task(cache_key_fn=lambda context, parameters: None)
    assert run(task_runner, cached, 1, 1) == [("Completed", 2), ("Completed", 2)]
    assert calls == [1, 1]


def test_a_key_function_that_raises_fails_that_run(task_runner, cached_task):
    cached, calls = cached_task(cache_key_fn=lambda context, parameters: parameters["y"])

    @flow(task_runner=task_runner)
    def my_flow():
        return cached(1).wait().message

    assert my_flow() == "Task run encountered an exception: KeyError: 'y'"
    assert calls == []


def test_two_tasks_with_the_same_key_do_not_share_values(task_runner, cached_task):
    cached, calls = cached_task()
    other = cached.with_options(name="other")
    assert run(task_runner, cached, 1) == run(task_runner, other, 1) == [("Completed", 2)]
    assert calls == [1, 1]


def test_failures_are_not_cached(task_runner):
    calls = []

    @task(cache_key_fn=lambda context, parameters: "key")
    def failing_once():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("text")
        return 5

    @flow(task_runner=task_runner)
    def my_flow():
        return [failing_once().wait().name for _ in range(3)]

    assert my_flow() == ["Failed", "Completed", "Cached"]


def test_a_cached_value_of_none_is_a_value(task_runner):
    calls = []

    @task(cache_key_fn=lambda context, parameters: "key")
    def nothing():
        calls.append(1)

    @flow(task_runner=task_runner)
    def my_flow():
        return [nothing().wait().name for _ in range(2)]

    assert my_flow() == ["Completed", "Cached"]
    assert calls == [1]


@pytest.mark.parametrize("expiration", [100, timedelta(seconds=100)])
def test_a_value_expires(task_runner, cached_task, monkeypatch, expiration):
    clock = FakeClock()
    monkeypatch.setattr(_timers, "clock", clock)
    cached, calls = cached_task(cache_expiration=expiration)
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    clock.advance(99)
    assert run(task_runner, cached, 1) == [("Cached", 2)]
    clock.advance(2)
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    assert calls == [1, 1]


def test_an_async_task_is_cached(run_async, task_runner):
    calls = []

    @task(cache_key_fn=lambda context, parameters: str(parameters["x"]))
    async def later(x):
        calls.append(x)
        return x + 1

    @flow(task_runner=task_runner)
    async def my_flow():
        return [await later(1), await later(1), *await later.map([1, 2])]

    assert run_async(my_flow) == [2, 2, 2, 3]
    assert calls == [1, 2]


def test_a_cached_run_serves_its_dependents_and_calls_its_hooks(task_runner, cached_task):
    seen = []
    cached, _ = cached_task(on_completion=[lambda task, run, state: seen.append(state.name)])

    @flow(task_runner=task_runner)
    def my_flow():
        first = cached(1).result()
        return cached(cached(1)), first

    assert my_flow() == (4, 2)
    assert seen == ["Completed", "Cached", "Completed"]


def test_nothing_is_written_unless_a_task_asks_for_it(task_runner, cached_task, home):
    cached, _ = cached_task()
    run(task_runner, cached, 1, 2)
    assert not home.exists()


@pytest.mark.skipif(os.name != "posix", reason="looks at the rights of files as POSIX has them")
def test_a_persisted_value_is_in_a_file_that_only_its_owner_can_read(task_runner, cached_task, home: Path):
    cached, calls = cached_task(persist_result=True)
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    [file] = [path for path in home.rglob("*") if path.is_file()]
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    _caching.clear()
    assert run(task_runner, cached, 1) == [("Cached", 2)]
    assert calls == [1]


def test_a_persisted_value_serves_another_process(home, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        dedent("""
        from riverrun import flow, task

        @task(cache_key_fn=lambda context, parameters: "key", persist_result=True)
        def work():
            print("working")
            return 5

        @flow(task_runner="sequential")
        def my_flow():
            print(work().wait().name, work().result())

        my_flow()
        """),
    )
    outputs = [
        subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(2)
    ]
    assert outputs == ["working\nCompleted 5\n", "Cached 5\n"]


def test_a_file_that_cannot_be_read_is_a_warning_and_no_value(task_runner, cached_task, home, caplog):
    cached, calls = cached_task(persist_result=True)
    run(task_runner, cached, 1)
    [file] = [path for path in home.rglob("*") if path.is_file()]
    file.write_bytes(b"cut short")
    _caching.clear()
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    assert calls == [1, 1]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"The cached result {file} cannot be read and is not used: ")


def test_a_value_that_cannot_be_written_is_a_warning_and_the_run_goes_on(task_runner, cached_task, home, caplog):
    home.write_text("a file where the folder should be")
    cached, _ = cached_task(persist_result=True)
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[-1].startswith(f"The result of task run 'double-{cached.short_hash}-0' is not persisted: ")


@pytest.mark.skipif(os.name != "posix", reason="looks at the rights of files as POSIX has them")
def test_a_value_in_a_home_that_others_can_write_to_is_in_a_folder_of_the_owners(task_runner, cached_task, home):
    home.mkdir()
    home.chmod(0o777)
    cached, _ = cached_task(persist_result=True)
    assert run(task_runner, cached, 1) == [("Completed", 2)]
    [file] = [path for path in home.rglob("*") if path.is_file()]
    assert file.parent != home
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
