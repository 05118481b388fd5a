"""Several flow runs on one cluster, from several processes; nothing of them stays there."""

from __future__ import annotations

import distributed
import pytest
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

pytestmark = pytest.mark.timeout(120)


def what_is_left(address):
    """What a scheduler and its workers still have of ours."""

    def look(dask_scheduler):
        return [
            *dask_scheduler.tasks,
            # A topic of Dask's own, named as a client, of what that did, is emptied at the end, and stays.
            *(topic for topic in dask_scheduler._broker._topics if topic.startswith("riverrun")),
            *(name for name in dask_scheduler.plugins if "riverrun" in name),
            *(name for name in dask_scheduler.worker_plugins if "riverrun" in name),
            *(client for client in dask_scheduler.clients if "riverrun" in client),
        ]

    def look_at_worker(dask_worker):
        return [*(name for name in dask_worker.plugins if "riverrun" in name), *dask_worker.data]

    with distributed.Client(address, set_as_default=False) as client:
        there = client.run(look_at_worker)
        return [*client.run_on_scheduler(look), *(each for found in there.values() for each in found)]


def test_nothing_is_left_after_five_flow_runs(shared_dask_cluster, wait_until):
    @task
    def nothing(number):
        return number

    @task
    def big(_):
        return bytes(20_000)

    @flow(task_runner=DaskTaskRunner(address=shared_dask_cluster.address))
    def many():
        return sum(nothing.map(big.map(range(100))).result()[0]) + len(nothing.map(range(100)).result())

    wait_until.empty(lambda: what_is_left(shared_dask_cluster.address), "nothing of the tests before")
    for _ in range(5):
        assert many() == 100
    wait_until.empty(lambda: what_is_left(shared_dask_cluster.address), "nothing")
    with distributed.Client(shared_dask_cluster.address, set_as_default=False) as client:
        events = client.run_on_scheduler(
            lambda dask_scheduler: {
                name: len(topic.events)
                for name, topic in dask_scheduler._broker._topics.items()
                if "riverrun" in name and topic.events
            }
        )
    assert [name for name in events if name.startswith("riverrun-")] == []


SCRIPT = """
import os, sys
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

@task
def add(number, mine):
    return number + mine

@flow(task_runner=DaskTaskRunner(address=os.environ["ADDRESS"]))
def adding(mine):
    return sum(add.map(range(50), mine).result())

print(adding(int(os.environ["MINE"])))
"""


def test_flow_runs_of_several_processes_at_once(shared_dask_cluster, run_script):
    started = [
        run_script(
            SCRIPT, name=f"{mine}.py", wait=False, env={"ADDRESS": shared_dask_cluster.address, "MINE": str(mine)}
        )
        for mine in range(3)
    ]
    for mine, process in enumerate(started):
        out, err = process.communicate(timeout=100)
        assert out.strip() == str(sum(range(50)) + 50 * mine), err
