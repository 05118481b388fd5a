"""The conformance suite on each kind of cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from riverrun.task_runners import DaskTaskRunner
from riverrun.testing import TaskRunnerConformance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskRunner

SMALL = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}


class TestTemporaryClusterOfProcesses(TaskRunnerConformance):
    time_limit = 60
    workers = 2

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return DaskTaskRunner(cluster_kwargs=SMALL)

    @pytest.fixture
    def unstartable_task_runner(self) -> TaskRunner:
        return DaskTaskRunner(address="tcp://127.0.0.1:1", start_timeout=2)


class TestTemporaryClusterOfThreads(TaskRunnerConformance):
    time_limit = 60
    workers = 2
    workers_are_threads = True

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return DaskTaskRunner(cluster_kwargs={"processes": False, **SMALL})


class TestClusterByAddress(TaskRunnerConformance):
    time_limit = 60
    workers = 2

    @pytest.fixture
    def task_runner(self, shared_dask_cluster: Any) -> TaskRunner:
        return DaskTaskRunner(address=shared_dask_cluster.address)


@pytest.fixture(scope="class")
def shared_cluster_object() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(**SMALL, host="127.0.0.1") as cluster:
        yield cluster


class TestClusterObject(TaskRunnerConformance):
    time_limit = 60
    workers = 2

    @pytest.fixture
    def task_runner(self, shared_cluster_object: Any) -> TaskRunner:
        # A worker that dies is started again by its nanny, which takes seconds: once is enough here.
        return DaskTaskRunner(cluster=shared_cluster_object, max_worker_losses=0)
