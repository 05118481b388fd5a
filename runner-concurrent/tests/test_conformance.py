"""The conformance suite with few workers, one worker, and as many as there are by default.

The class with two workers has all of it. What the number of workers can make a difference to is run with the other
numbers, too; the rest of it only where there is time for that (the mark `stress`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from riverrun.task_runners import ConcurrentTaskRunner
from riverrun.testing import TaskRunnerConformance

if TYPE_CHECKING:
    from collections.abc import Callable


def by_default_only(*names: str) -> Any:
    """Leave all tests of a suite but those of some names to whoever asks for `stress`."""

    def mark_others(suite: type) -> type:
        # A name that the suite does not have any more must not go unnoticed.
        tests = {name for name in dir(suite) if name.startswith("test_")}
        assert set(names) <= tests, set(names) - tests
        for name in tests - set(names):
            setattr(suite, name, pytest.mark.stress(of_its_own(getattr(suite, name))))
        return suite

    return mark_others


def of_its_own(test: Callable[..., None]) -> Callable[..., None]:
    """Give a function that can be marked without marking the one that other classes have."""

    @functools.wraps(test)  # pytest finds the fixtures and marks of the test through this
    def again(self: Any, **fixtures: Any) -> None:
        test(self, **fixtures)

    return again


class TestTwoWorkers(TaskRunnerConformance):
    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner(max_workers=2)


@by_default_only(
    "test_async_tasks_of_an_async_flow_overlap",
    "test_async_tasks_overlap",
    "test_dependents_that_are_submitted_before_a_slow_upstream_has_ended_hold_no_worker",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that",
    "test_no_thread_no_process_and_no_listening_socket_is_left_by_an_async_flow_run",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_sync_tasks_overlap",
    "test_the_runner_can_be_pickled",
    "test_the_runner_equals_its_copies",
    "test_the_runner_stops_after_the_last_task_has_ended",
    "test_waiting_for_a_worker_does_not_count_towards_the_time_limit",
)
class TestConcurrentTaskRunner(TaskRunnerConformance):
    workers = 5

    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner()


@by_default_only(
    "test_a_flow_run_that_ends_stops_no_other_with_the_same_runner_object",
    "test_a_flow_that_overruns_its_time_limit_is_timed_out",
    "test_a_long_chain_does_not_get_stuck",
    "test_a_retry_delay_holds_no_worker",
    "test_a_run_that_waits_for_a_worker_can_be_cancelled",
    "test_a_run_that_waits_for_its_upstream_can_be_cancelled",
    "test_a_subflow_beside_its_flow_uses_the_same_runner_object",
    "test_a_sync_task_that_overruns_its_time_limit_is_timed_out",
    "test_a_task_that_calls_a_task_gets_a_finished_future",
    "test_a_task_that_is_timed_out_may_be_tried_again",
    "test_a_thousand_tasks_complete",
    "test_a_wide_fan_does_not_get_stuck",
    "test_an_async_flow_goes_on_while_a_task_runs",
    "test_several_async_flow_runs_share_one_loop_and_one_runner_object",
    "test_several_threads_run_flows_with_one_runner_object",
    "test_sync_and_async_tasks_run_in_an_async_flow",
    "test_tasks_that_call_tasks_do_not_get_stuck_however_many_they_are",
    "test_wait_for_holds_a_task_back_until_others_have_ended",
    "test_waiting_for_a_worker_does_not_count_towards_the_time_limit",
)
class TestOneWorker(TaskRunnerConformance):
    workers = 1

    @pytest.fixture
    def task_runner(self):
        return ConcurrentTaskRunner(max_workers=1)
