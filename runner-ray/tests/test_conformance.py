"""The conformance suite on each kind of cluster.

The two classes with all tests share one session with a running cluster, by its address and through Ray Client, as flow
runs of one process do that overlap. In the others each flow run opens its own: those run the tests in which how a
session begins and ends can make a difference. An instance costs ten seconds of a processor, and ten processes: what
starts many of them, or tests a second time what another class has tested, is left to the stress tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from riverrun.task_runners import RayTaskRunner
from riverrun.testing import TaskRunnerConformance

if TYPE_CHECKING:
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
NOT_STARTED = "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body"
LEFT = "test_leaving_the_start_context_by_an_exception_lets_it_through"
THREADS = "test_several_threads_run_flows_with_one_runner_object"
PICKLED = "test_the_runner_can_be_pickled"
LOST = "test_runs_on_other_workers_survive_a_worker_that_dies"


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


class OnRay(TaskRunnerConformance):
    time_limit = 300
    workers = 2
    survives_lost_workers = True


@pytest.mark.usefixtures("no_session", "lean")
class OnTemporaryInstances(OnRay):
    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return RayTaskRunner(init_kwargs={"num_cpus": 2})

    @pytest.fixture
    def unstartable_task_runner(self) -> TaskRunner:
        return RayTaskRunner(address="127.0.0.1:1", start_timeout=2)


@only(NOT_STARTED, THREADS, PICKLED, LOST)
class TestTemporaryInstance(OnTemporaryInstances):
    pass


@pytest.mark.stress
@only(
    *(name for name in BEGIN_AND_END if name not in {NOT_STARTED, THREADS, PICKLED}), "test_each_task_runs_exactly_once"
)
class TestMoreTemporaryInstances(OnTemporaryInstances):
    """Each test starts an instance, or six."""


@pytest.mark.usefixtures("no_session")
class WithSessionsOfItsOwn(OnRay):
    @pytest.fixture
    def task_runner(self, shared_ray_cluster: Any) -> TaskRunner:
        return RayTaskRunner(address=shared_ray_cluster.address)


@only(LEFT, THREADS)
class TestRunningClusterWithSessionsOfItsOwn(WithSessionsOfItsOwn):
    pass


SHORT = [name for name in BEGIN_AND_END if "no_listening_socket" not in name and "leaves_no_other" not in name]


@pytest.mark.stress
@only(*(name for name in SHORT if name not in {LEFT, THREADS}))
class TestMoreOfARunningClusterWithSessionsOfItsOwn(WithSessionsOfItsOwn):
    pass


@pytest.mark.usefixtures("no_session")
class ThroughRayClientWithSessionsOfItsOwn(OnRay):
    @pytest.fixture
    def task_runner(self, shared_ray_cluster: Any) -> TaskRunner:
        return RayTaskRunner(address=shared_ray_cluster.client_address)

    @pytest.fixture
    def unstartable_task_runner(self, closed_port: int) -> TaskRunner:
        return RayTaskRunner(address=f"ray://127.0.0.1:{closed_port}", start_timeout=2)


@only(NOT_STARTED, LEFT)
class TestRayClientWithSessionsOfItsOwn(ThroughRayClientWithSessionsOfItsOwn):
    pass


@pytest.mark.stress
@only(*(name for name in SHORT if name not in {NOT_STARTED, LEFT}))
class TestMoreOfRayClientWithSessionsOfItsOwn(ThroughRayClientWithSessionsOfItsOwn):
    pass


class ThroughRayClient(OnRay):
    @pytest.fixture
    def task_runner(self, sessions: Any, shared_ray_cluster: Any) -> TaskRunner:
        sessions.hold(shared_ray_cluster.client_address)
        return RayTaskRunner(address=shared_ray_cluster.client_address)


class TestRayClient(ThroughRayClient):
    test_the_process_ends_and_leaves_no_other_behind_after = None  # as long as all the others together


@pytest.mark.stress
@only("test_the_process_ends_and_leaves_no_other_behind_after")
class TestSignalsThroughRayClient(ThroughRayClient):
    pass


class TestRunningCluster(OnRay):  # last: the tests that follow hold the same session
    @pytest.fixture
    def task_runner(self, held_session: Any) -> TaskRunner:
        return RayTaskRunner(address=held_session.address)
