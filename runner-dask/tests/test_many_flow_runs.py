"""Many flow runs at once with one runner object: each has a cluster of its own, and closes it."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

pytestmark = pytest.mark.usefixtures("nothing_left")  # all clusters are closed: no process, port or folder

RUNNER = DaskTaskRunner(
    cluster_kwargs={"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}, start_timeout=100
)
at_once = pytest.mark.parametrize("count", [3, pytest.param(10, marks=pytest.mark.stress)])


def doubled_on_a_worker():
    @task
    def doubled(number):
        return os.getpid(), 2 * number

    return doubled


@at_once
def test_many_at_once_in_threads(count):
    doubled = doubled_on_a_worker()

    @flow(task_runner=RUNNER)
    def run(number):
        return [doubled(number * 100 + n) for n in range(10)]

    with ThreadPoolExecutor(count) as threads:
        results = list(threads.map(run, range(count)))
    assert [[value for _, value in result] for result in results] == [
        [2 * (number * 100 + n) for n in range(10)] for number in range(count)
    ]
    assert len({pid for result in results for pid, _ in result} - {os.getpid()}) == count


@at_once
def test_many_at_once_in_async_tasks(count):
    doubled = doubled_on_a_worker()

    @flow(task_runner=RUNNER)
    async def run(number):
        return [await doubled(number * 100 + n) for n in range(10)]

    async def all_of_them():
        return await asyncio.gather(*(run(number) for number in range(count)))

    results = asyncio.run(all_of_them())
    assert [[value for _, value in result] for result in results] == [
        [2 * (number * 100 + n) for n in range(10)] for number in range(count)
    ]
    assert len({pid for result in results for pid, _ in result} - {os.getpid()}) == count
