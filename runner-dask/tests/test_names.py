"""Names of keys, subflows on other runners, and the log of a flow with a Dask subflow."""

from __future__ import annotations

import distributed
import pytest
from distributed.utils import key_split
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

pytestmark = pytest.mark.timeout(120)
ONE = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": "127.0.0.1:0"}


@task
def key():
    return distributed.get_worker().get_current_task()


def test_a_key_begins_with_the_name_of_its_task():
    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE))
    def named():
        return [key(), key(), key.with_options(name="load data")(), key.with_options(name="läd-2")()]

    keys = named()
    assert [key_split(each) for each in keys] == ["key", "key", "load data", "läd"]
    assert len(set(keys)) == 4
    assert keys[3].startswith("läd-2-")


def test_a_subflow_and_a_flow_on_another_cluster():
    @task
    def scheduler():
        return distributed.get_worker().scheduler.address

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE))
    def other(number):
        return scheduler(), number

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE))
    def outer():
        mine = scheduler()
        return mine, other(1), other.submit(scheduler()), scheduler()

    mine, (first, one), (second, given), again = outer()
    assert mine == again == given
    assert one == 1
    assert len({mine, first, second}) == 3


LOG = """
import re
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner, SequentialTaskRunner

@task
def hello_local():
    print("Hello!", flush=True)

@task
def hello_dask():
    print("Hello from Dask!", flush=True)

@flow(task_runner=DaskTaskRunner(cluster_kwargs={"dashboard_address": "127.0.0.1:0", "n_workers": 1}))
def dask_subflow():
    hello_dask()

@flow(task_runner=SequentialTaskRunner())
def sequential_flow():
    hello_local()
    dask_subflow()
    hello_local()

sequential_flow()
"""

EXPECTED = """
Beginning flow run NAME for flow 'sequential-flow'...
Starting task runner `SequentialTaskRunner`...
Submitting task run 'hello_local-ID-0' to task runner...
Hello!
Task run 'hello_local-ID-0' finished in state Completed(message=None, type=COMPLETED)
Beginning subflow run NAME for flow 'dask-subflow'...
Starting task runner `DaskTaskRunner`...
Creating a new Dask cluster with `distributed.deploy.local.LocalCluster`
The Dask dashboard is available at http://127.0.0.1:PORT/status
Submitting task run 'hello_dask-ID-0' to task runner...
Hello from Dask!
Task run 'hello_dask-ID-0' finished in state Completed(message=None, type=COMPLETED)
Shutting down task runner `DaskTaskRunner`...
Subflow run NAME finished in state Completed(message='All states completed.', type=COMPLETED)
Submitting task run 'hello_local-ID-1' to task runner...
Hello!
Task run 'hello_local-ID-1' finished in state Completed(message=None, type=COMPLETED)
Shutting down task runner `SequentialTaskRunner`...
Flow run NAME finished in state Completed(message='All states completed.', type=COMPLETED)
"""


def test_the_log_of_a_sequential_flow_with_a_dask_subflow(run_script):
    import re
    import subprocess

    done = run_script(LOG, stderr=subprocess.STDOUT)  # one pipe for both: in the order in which they were written
    assert done.returncode == 0, done.out
    text = re.sub(r"(?m)^\d\d:\d\d:\d\d\.\d{3} \| ", "", done.out)
    text = re.sub(r"(hello_\w+)-[0-9a-f]{8}-", r"\1-ID-", text)
    text = re.sub(r"((?:F|f)low run) '[^']+'", r"\1 NAME", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    assert text.strip().splitlines() == EXPECTED.strip().splitlines()
