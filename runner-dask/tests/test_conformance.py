"""The conformance suite on each kind of cluster.

The classes with all tests share one cluster: one that runs elsewhere, by its address, and one whose workers are threads
of this process, as an object. A temporary cluster starts for each flow run, and so do, and end, its processes: those
classes run the tests in which the beginning, the end or a death can make a difference. On the temporary
clusters, and on an object whose workers are processes, the whole suite runs among the stress tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from riverrun.task_runners import DaskTaskRunner
from riverrun.testing import TaskRunnerConformance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.abc import TaskRunner

SMALL = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}

BEGIN_AND_END = (
    "test_a_flow_run_leaves_the_runner_as_it_was",
    "test_a_flow_run_that_ends_stops_no_other_with_the_same_runner_object",
    "test_a_flow_run_without_tasks_starts_and_stops_the_runner",
    "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body",
    "test_a_subflow_beside_its_flow_uses_the_same_runner_object",
    "test_leaving_the_start_context_by_an_exception_lets_it_through",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_an_async_flow_run",
    "test_several_async_flow_runs_share_one_loop_and_one_runner_object",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_the_runner_can_be_pickled",
    "test_the_runner_can_be_started_again_after_it_was_stopped",
    "test_the_runner_starts_once_and_stops_once_for_a_flow_run_that",
    "test_the_runner_stops_after_the_last_task_has_ended",
    "test_values_go_from_task_to_task",
    "test_what_was_started_is_stopped_if_the_start_fails_at_its_end",
)
INTERRUPTS = ("test_the_process_ends_and_leaves_no_other_behind_after",)
DEATHS = (
    "test_a_flow_run_whose_worker_died_has_workers_again",
    "test_a_run_that_is_lost_with_its_worker_is_crashed",
    "test_a_task_that_exits_python_fails_alone",
    "test_another_flow_run_has_workers_again",
    "test_no_run_hangs_when_a_worker_dies",
    "test_runs_on_other_workers_survive_a_worker_that_dies",
)
TIME_LIMITS = (
    "test_a_flow_that_overruns_its_time_limit_is_timed_out",
    "test_a_sync_task_that_overruns_its_time_limit_is_timed_out",
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


def without(*names: str) -> Any:
    """Leave out the tests of a suite that have one of some names."""

    def leave_out_these(suite: type) -> type:
        for name in names:
            assert hasattr(suite, name), name
            setattr(suite, name, None)
        return suite

    return leave_out_these


# -- Clusters that are there already


class TestClusterByAddress(TaskRunnerConformance):
    time_limit = 100
    workers = 2

    @pytest.fixture
    def task_runner(self, shared_dask_cluster: Any) -> TaskRunner:
        # A worker that dies is started again by its nanny, which takes seconds: once is enough here.
        return DaskTaskRunner(address=shared_dask_cluster.address, max_worker_losses=0)


@pytest.fixture(scope="class")
def object_of_threads() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(**SMALL, processes=False, worker_dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@without(*INTERRUPTS)  # of another process, which cannot reach these threads
class TestClusterObjectOfThreads(TaskRunnerConformance):
    time_limit = 100
    workers = 2
    workers_are_threads = True

    @pytest.fixture
    def task_runner(self, object_of_threads: Any) -> TaskRunner:
        return DaskTaskRunner(cluster=object_of_threads)


@pytest.fixture(scope="class")
def object_of_processes() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(**SMALL, host="127.0.0.1") as cluster:
        yield cluster


class OnAnObjectOfProcesses(TaskRunnerConformance):
    time_limit = 100
    workers = 2

    @pytest.fixture
    def task_runner(self, object_of_processes: Any) -> TaskRunner:
        return DaskTaskRunner(cluster=object_of_processes, max_worker_losses=0)


@only(
    "test_a_run_that_is_lost_with_its_worker_is_crashed",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that",
    "test_runs_on_other_workers_survive_a_worker_that_dies",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_tasks_run_in_the_processes_that_the_runner_declares",
    "test_the_runner_can_be_pickled",
    "test_values_go_from_task_to_task",
)
class TestClusterObject(OnAnObjectOfProcesses):
    """The object of threads above runs the rest."""


@pytest.mark.stress
class TestClusterObjectAndTheWholeSuite(OnAnObjectOfProcesses):
    pass


# -- Clusters that start and end with each flow run


class OnTemporaryProcesses(TaskRunnerConformance):
    time_limit = 100
    workers = 2

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return DaskTaskRunner(cluster_kwargs=SMALL)

    @pytest.fixture
    def unstartable_task_runner(self) -> TaskRunner:
        return DaskTaskRunner(address="tcp://127.0.0.1:1", start_timeout=2)


@only(
    *DEATHS,
    "test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body",
    "test_a_sync_task_that_overruns_its_time_limit_is_timed_out",
    "test_each_task_runs_exactly_once",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_tasks_run_in_the_processes_that_the_runner_declares",
    "test_the_runner_can_be_pickled",
    "test_values_go_from_task_to_task",
)
class TestTemporaryClusterOfProcesses(OnTemporaryProcesses):
    """Interrupts have tests of their own, in `test_interrupts.py`; more of begin and end is with the threads below."""


@pytest.mark.stress
class TestTemporaryClusterOfProcessesAndTheWholeSuite(OnTemporaryProcesses):
    pass


class OnTemporaryThreads(TaskRunnerConformance):
    time_limit = 100
    workers = 2
    workers_are_threads = True

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        return DaskTaskRunner(cluster_kwargs={"processes": False, **SMALL})


@only(*BEGIN_AND_END, *TIME_LIMITS, "test_each_task_runs_exactly_once")
class TestTemporaryClusterOfThreads(OnTemporaryThreads):
    pass


@pytest.mark.stress
class TestTemporaryClusterOfThreadsAndTheWholeSuite(OnTemporaryThreads):
    pass
