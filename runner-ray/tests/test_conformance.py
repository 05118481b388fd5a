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

BEGIN_AND_END = (
    "test_a_flow_run_leaves_the_runner_as_it_was",
    "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body",
    "test_leaving_the_start_context_by_an_exception_lets_it_through",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_an_async_flow_run",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_the_process_ends_and_leaves_no_other_behind_after",
    "test_the_runner_can_be_pickled",
    "test_values_go_from_task_to_task",
    "test_what_was_started_is_stopped_if_the_start_fails_at_its_end",
)


def only(*names: str) -> Any:
    """Leave out all tests of a suite but those of some names."""

    def leave_out_others(suite: type) -> type:
        # A name that the suite does not have any more must not go unnoticed.
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


@only(*BEGIN_AND_END, "test_runs_on_other_workers_survive_a_worker_that_dies", "test_each_task_runs_exactly_once")
class TestTemporaryInstance(TaskRunnerConformance):
    time_limit = 90
    workers = 2
    survives_lost_workers = True

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return RayTaskRunner(init_kwargs={"num_cpus": 2})

    @pytest.fixture
    def unstartable_task_runner(self) -> TaskRunner:
        return RayTaskRunner(address="127.0.0.1:1", start_timeout=2)


SHORT = [name for name in BEGIN_AND_END if "no_listening_socket" not in name and "leaves_no_other" not in name]


@only(*SHORT)
class TestRunningClusterWithSessionsOfItsOwn(TaskRunnerConformance):
    time_limit = 90
    workers = 2

    @pytest.fixture
    def task_runner(self, shared_ray_cluster: Any) -> TaskRunner:
        return RayTaskRunner(address=shared_ray_cluster.address)


@only(*SHORT)
class TestRayClientWithSessionsOfItsOwn(TaskRunnerConformance):
    time_limit = 90
    workers = 2

    @pytest.fixture
    def task_runner(self, shared_ray_cluster: Any) -> TaskRunner:
        return RayTaskRunner(address=shared_ray_cluster.client_address)

    @pytest.fixture
    def unstartable_task_runner(self, closed_port: int) -> TaskRunner:
        return RayTaskRunner(address=f"ray://127.0.0.1:{closed_port}", start_timeout=2)
