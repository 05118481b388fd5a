"""The conformance suite on each kind of cluster.

A temporary instance takes five seconds to start and to shut down, so not every test of the suite has one of its own:
that class runs those in which how the cluster begins and ends can make a difference. The classes with all tests share
one session with a running cluster, by its address and through Ray Client, as flow runs of one process do that overlap;
each of them also has a class whose flow runs connect by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from riverrun.task_runners import RayTaskRunner
from riverrun.testing import TaskRunnerConformance
from runner_ray._sessions import opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskRunner

ONE_OF_EACH_KIND = {
    "test_a_run_that_is_lost_with_its_worker_is_crashed",
}


def only(*names: str) -> Any:
    """Leave out all tests of a suite but those of some names."""

    def leave_out_others(suite: type) -> type:
        tests = {name for name in dir(suite) if name.startswith("test_")}
        assert set(names) <= tests, set(names) - tests
        for name in tests - set(names):
            setattr(suite, name, None)
        return suite

    return leave_out_others


@pytest.fixture(scope="class")
def direct(shared_ray_cluster: Any) -> Iterator[TaskRunner]:
    runner = RayTaskRunner(address=shared_ray_cluster.address)
    with opened(runner):
        yield runner


@pytest.fixture(scope="class")
def through_client(shared_ray_cluster: Any) -> Iterator[TaskRunner]:
    runner = RayTaskRunner(address=shared_ray_cluster.client_address)
    with opened(runner):
        yield runner


class TestRunningCluster(TaskRunnerConformance):
    time_limit = 90
    workers = 2
    survives_lost_workers = True

    @pytest.fixture
    def task_runner(self, direct: TaskRunner) -> TaskRunner:
        return direct


class TestRayClient(TaskRunnerConformance):
    time_limit = 90
    workers = 2
    survives_lost_workers = True

    @pytest.fixture
    def task_runner(self, through_client: TaskRunner) -> TaskRunner:
        return through_client
