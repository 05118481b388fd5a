"""What the code inside a task sees and says on a worker: logs, prints, nested calls, tracebacks."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback

import distributed
import pytest
from riverrun import flow, get_run_logger, task
from riverrun.task_runners import DaskTaskRunner

pytestmark = pytest.mark.timeout(120)
LIMIT = 100


@pytest.fixture
def runner(local_cluster):
    return DaskTaskRunner(cluster=local_cluster)


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


def test_nested_tasks_run_on_the_same_worker(runner):
    @task
    def inner(number):
        return distributed.get_worker().address, number

    @task
    def outer(number):
        future = inner(number)
        return future.done(), future.result(), distributed.get_worker().address

    @flow(task_runner=runner)
    def nesting():
        return outer.map(range(8))

    for number, (done, (there, given), here) in enumerate(nesting()):
        assert done
        assert there == here
        assert given == number


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
    assert record.flow_run_name


def test_the_lines_of_a_long_task_arrive_while_it_runs(runner, lines, tmp_path, wait_until):
    @task(log_prints=True)
    def long(go_on):
        print("begun")
        end = time.monotonic() + LIMIT
        while not go_on.exists() and time.monotonic() < end:
            time.sleep(0.01)
        print("ended")

    @flow(task_runner=runner)
    def watching():
        future = long(tmp_path / "go on")
        wait_until(lambda: lines(future.name) == ["begun"], "the first line has arrived")
        assert not future.done()
        (tmp_path / "go on").touch()
        future.result()
        return future.name

    name = watching()
    assert lines(name) == ["begun", "ended"]


def test_a_traceback_begins_in_the_users_code_and_says_where_it_was(runner, caplog):
    @task
    def divide(number):
        return number / 0

    @flow(task_runner=runner)
    def dividing():
        return divide(1)

    with pytest.raises(ZeroDivisionError) as error:
        dividing()
    assert any(re.match(r"On worker [^ ]+:\d+[.:]", note) for note in error.value.__notes__)
    (logged,) = [record for record in caplog.records if record.exc_info and "Task run " in record.getMessage()]
    shown = logging.Formatter().formatException(logged.exc_info).splitlines()
    assert shown[0] == "Traceback (most recent call last):"
    assert re.fullmatch(rf'  File "{re.escape(__file__)}", line \d+, in divide', shown[1])
    assert shown[2].strip() == "return number / 0"
    assert any(line.startswith("On worker ") for line in shown)
    text = "".join(traceback.format_exception(error.value))
    assert "in divide" in text
