"""What the code inside a task sees and says on a worker: logs, prints, nested calls, tracebacks, names."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import traceback

import pytest
from riverrun import flow, get_run_logger, task
from riverrun.exceptions import TaskRunnerStartError
from riverrun.task_runners import RayTaskRunner

LIMIT = 120


@pytest.fixture
def runner(held_session):
    return RayTaskRunner(address=held_session.address)


@pytest.fixture
def lines(caplog):
    """The records that task runs have made, by the name of the task run."""
    caplog.set_level(logging.INFO, "riverrun")

    def lines(name):
        mine = [record for record in caplog.records if getattr(record, "task_run_name", None) == name]
        texts = [record.getMessage() for record in mine]
        return [text.partition(" - ")[2] for text in texts if " - " in text]

    return lines


def test_async_tasks(runner):
    @task
    async def double(number):
        await asyncio.sleep(0.01)
        return 2 * number

    @flow(task_runner=runner)
    def doubling():
        return double.map(double.map(range(5)))

    assert doubling() == [0, 4, 8, 12, 16]


def test_subflows_on_other_runners(runner):
    @task
    def process():
        import os

        return os.getpid()

    @flow(task_runner="concurrent")
    def here():
        return process().result()

    @flow(task_runner=runner)
    def around():
        return here(), process().result()

    import os

    inner, outer = around()
    assert inner == os.getpid() != outer


@pytest.mark.parametrize("fails", [False, True])
def test_all_lines_of_eight_tasks_arrive_in_order(runner, lines, fails):
    @task(log_prints=True)
    def talk(number):
        for line in range(1000):
            print(f"{number}: {line}")
        if fails:
            raise ValueError("after all was said")

    names = []

    @flow(task_runner=runner)
    def talking():
        futures = talk.map(range(8))
        names.extend(future.name for future in futures)

    state = talking(return_state=True)
    assert state.is_failed() is fails
    for number, name in enumerate(names):
        assert lines(name) == [f"{number}: {line}" for line in range(1000)]


def test_get_run_logger(runner, caplog):
    caplog.set_level(logging.INFO, "riverrun")

    @task
    def log():
        get_run_logger().warning("the worker says %d", 5)

    @flow(task_runner=runner)
    def logging_flow():
        log().result()

    logging_flow()
    (record,) = [record for record in caplog.records if "the worker says" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert record.getMessage() == f"Task run {record.task_run_name!r} - the worker says 5"
    assert re.fullmatch(r".+:\d+", record.worker)


def test_a_traceback_begins_in_the_users_code_and_says_where_it_was(runner):
    @task
    def divide(number):
        return number / 0

    @flow(task_runner=runner)
    def dividing():
        return divide(1)

    with pytest.raises(ZeroDivisionError) as error:
        dividing()
    assert type(error.value) is ZeroDivisionError
    text = "".join(traceback.format_exception(error.value))
    assert re.search(rf'On worker [^ ]+:\d+:\nTraceback .*\n  File "{re.escape(__file__)}", line \d+, in divide', text)
    assert "RayTaskError" not in text


def test_names_in_ray_are_those_of_the_task_runs(runner, monkeypatch):
    from runner_ray import _functions

    names = []
    call = _functions.Functions.call

    def noted(self, options, name, *rest):
        names.append(name)
        return call(self, options, name, *rest)

    monkeypatch.setattr(_functions.Functions, "call", noted)

    @task
    def named():
        import ray

        return ray.get_runtime_context().get_task_name()

    @flow(task_runner=runner)
    def naming():
        future = named()
        return future.name, future.result(LIMIT)

    name, in_ray = naming()
    assert in_ray == name
    assert names == [name]


def test_a_module_that_the_worker_lacks_and_one_that_is_shipped(held_session, tmp_path, monkeypatch):
    (tmp_path / "steps_of_ray.py").write_text(
        "from riverrun import task\n\n\n@task\ndef step(number):\n    return number + 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import steps_of_ray

    @flow(task_runner=RayTaskRunner(address=held_session.address, ship=[steps_of_ray]))
    def shipping():
        return steps_of_ray.step(steps_of_ray.step(1)).result(LIMIT)

    try:
        name = []

        @flow(task_runner=RayTaskRunner(address=held_session.address))
        def lacking():
            future = steps_of_ray.step(1)
            name.append(future.name)
            future.result(LIMIT)

        with pytest.raises(ModuleNotFoundError) as error:
            lacking()
        assert f"Task run '{name[0]}' needs the module 'steps_of_ray', which worker " in str(error.value)
        assert shipping() == 3
    finally:
        sys.modules.pop("steps_of_ray")


def test_nodes_with_other_versions_are_told_of(held_session, monkeypatch, caplog):
    from dataclasses import replace

    from riverrun import workers

    environment = workers.environment

    def other(packages=()):
        found = environment(packages)
        return replace(found, packages={**found.packages, "numpy": "1.0"})

    monkeypatch.setattr(workers, "environment", other)

    @flow(task_runner=RayTaskRunner(address=held_session.address))
    def asking():
        return 1

    assert asking() == 1
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(
        f"`RayTaskRunner`: the worker of the Ray cluster at {held_session.address} has other versions than this "
    )
    monkeypatch.setattr(workers, "environment", lambda packages=(): replace(environment(packages), python="3.9.1"))
    with pytest.raises(TaskRunnerStartError, match=r"run the workers on Python 3\.9"):
        asking()
