from __future__ import annotations

import logging
import threading

import pytest
from riverrun import ConfigurationError, exponential_backoff, flow, task
from riverrun.states import Failed

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


class Failing:
    """Work that fails some times, and remembers its attempts."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.attempts = 0

    def __call__(self) -> int:
        self.attempts += 1
        if self.attempts <= self.times:
            raise ValueError(f"attempt {self.attempts}")
        return self.attempts


def outcome(task_runner, times, **options):
    """Give the state's text, the run count and how often the work was called."""
    work = Failing(times)
    seen = []

    @flow(task_runner=task_runner)
    def my_flow():
        future = task(name="work", **options)(work)()
        seen.extend([repr(future.wait()), future.task_run.run_count, work.attempts])

    my_flow(return_state=True)
    return seen


COMPLETED = "Completed(message=None, type=COMPLETED)"


def failed(attempt: int) -> str:
    return f"Failed(message='Task run encountered an exception: ValueError: attempt {attempt}', type=FAILED)"


def test_without_retries_there_is_one_attempt(task_runner):
    assert outcome(task_runner, 1) == [failed(1), 1, 1]


def test_a_run_is_tried_again_until_it_completes(task_runner):
    assert outcome(task_runner, 2, retries=5) == [COMPLETED, 3, 3]


def test_a_run_that_has_no_attempt_left_has_failed_with_its_last_exception(task_runner):
    assert outcome(task_runner, 9, retries=2) == [failed(3), 3, 3]


@pytest.mark.parametrize(
    "delay",
    [0, 0.001, [0.001, 0], [0.001], (0,), lambda retries: [0.001] * retries, exponential_backoff(0.001)],
)
def test_a_delay_may_be_a_number_a_list_or_a_callable(task_runner, delay):
    assert outcome(task_runner, 2, retries=2, retry_delay_seconds=delay) == [COMPLETED, 3, 3]


def test_an_async_task_is_tried_again(run_async, task_runner):
    work = Failing(2)

    @task(retries=2, retry_delay_seconds=0.001)
    async def later():
        return work()

    @flow(task_runner=task_runner)
    async def my_flow():
        return await later()

    @flow(task_runner=task_runner)
    def sync_flow():
        return later()

    assert run_async(my_flow) == 3
    work.attempts = 0
    assert sync_flow() == 3


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0, 0, 0, 0]),
        (2, [2, 2, 2, 2]),
        ([1, 2], [1, 2, 2, 2]),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4]),
        (lambda retries: list(range(retries)), [0, 1, 2, 3]),
        (exponential_backoff(10), [10, 20, 40, 80]),
    ],
)
def test_the_delays_in_seconds_before_each_retry(given, expected):
    made = task(retries=4, retry_delay_seconds=given)(Failing(0))
    assert [made.retry_delay(attempt) for attempt in (1, 2, 3, 4)] == expected


def test_a_callable_is_given_the_number_of_retries():
    seen = []
    task(retries=7, retry_delay_seconds=lambda retries: seen.append(retries) or [1])(Failing(0))
    assert seen == [7]


def test_exponential_backoff_doubles():
    assert exponential_backoff(0.5)(4) == [0.5, 1, 2, 4]
    with pytest.raises(ConfigurationError) as caught:
        exponential_backoff(-1)
    assert str(caught.value) == "exponential_backoff(): factor must be a number of seconds, 0 or more, not -1."


def test_jitter_lengthens_a_delay_by_up_to_its_factor():
    made = task(retries=1, retry_delay_seconds=10, retry_jitter_factor=0.5)(Failing(0))
    delays = [made.retry_delay(1) for _ in range(200)]
    assert all(10 <= delay <= 15 for delay in delays)
    assert len(set(delays)) > 100
    without = made.with_options(retry_jitter_factor=0)
    assert without.retry_delay(1) == 10


def test_the_condition_is_asked_with_the_task_the_run_and_the_state(task_runner):
    seen = []

    def condition(task, task_run, state):
        seen.append((task.name, task_run.name.startswith("work-"), task_run.run_count, state.name, str(state.data)))
        return len(seen) < 2

    assert outcome(task_runner, 9, retries=5, retry_condition_fn=condition) == [failed(2), 2, 2]
    assert seen == [("work", True, 1, "Failed", "attempt 1"), ("work", True, 2, "Failed", "attempt 2")]


def test_the_condition_is_not_asked_when_no_attempt_is_left(task_runner):
    seen = []
    outcome(task_runner, 9, retries=1, retry_condition_fn=lambda *args: seen.append(1) or True)
    assert seen == [1]


def test_a_condition_that_raises_is_logged_and_the_run_has_failed(task_runner, caplog):
    def condition(task, task_run, state):
        raise ZeroDivisionError("in the condition")

    assert outcome(task_runner, 9, retries=5, retry_condition_fn=condition) == [failed(1), 1, 1]
    record = next(record for record in caplog.records if record.message.startswith("retry_condition_fn"))
    assert record.message.endswith("raised: it is not tried again.")
    assert "in the condition" in record.exc_text


@pytest.fixture
def announced():
    """Give an event that is set when a run has said that it will be tried again: by then it awaits its retry."""
    event = threading.Event()

    class Announcing(logging.Handler):
        def emit(self, record):
            if "is tried again" in record.getMessage():
                event.set()

    handler = Announcing()
    logger = logging.getLogger("riverrun.task_runs")
    logger.addHandler(handler)
    yield event
    logger.removeHandler(handler)


def test_between_two_attempts_a_run_is_awaiting_its_retry(announced):
    @task(retries=1, retry_delay_seconds=1_000)
    def work():
        raise ValueError("not yet")

    @flow(task_runner="concurrent")
    def my_flow():
        future = work()
        assert announced.wait(10)
        state = future.state
        future.cancel()
        return repr(state), future.task_run.run_count

    text = "Task run encountered an exception: ValueError: not yet"
    assert my_flow() == (f"AwaitingRetry(message='{text}', type=PENDING)", 1)


def test_in_its_second_attempt_a_run_is_retrying():
    futures, submitted, seen = [], threading.Event(), []

    @task(retries=1)
    def work():
        assert submitted.wait(10)
        seen.append(repr(futures[0].state))
        if len(seen) == 1:
            raise ValueError("not yet")

    @flow(task_runner="concurrent")
    def my_flow():
        futures.append(work())
        submitted.set()

    my_flow()
    assert seen == ["Running(message=None, type=RUNNING)", "Retrying(message=None, type=RUNNING)"]


def test_a_run_that_returned_a_failed_state_is_not_tried_again(task_runner):
    calls = []

    @task(retries=3)
    def stating():
        calls.append(1)
        return Failed("I say so")

    @flow(task_runner=task_runner)
    def my_flow():
        return repr(stating().wait())

    assert my_flow() == "Failed(message='I say so', type=FAILED)"
    assert len(calls) == 1


def test_each_attempt_that_is_followed_by_another_is_a_warning(task_runner, caplog):
    outcome(task_runner, 2, retries=2, retry_delay_seconds=[0.002, 0])
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.message for record in warnings] == [
        f"Task run '{record.task_run_name}' failed in attempt {n} of 3 and is tried again in {delay} seconds: Task run "
        f"encountered an exception: ValueError: attempt {n}"
        for n, delay, record in zip((1, 2), ("0.002", "0"), warnings, strict=True)
    ]


def test_hooks_are_called_once_after_the_last_attempt(task_runner):
    seen = []

    def hook(task, task_run, state):
        seen.append((state.name, task_run.run_count))

    hooks = {"on_completion": [hook], "on_failure": [hook]}
    outcome(task_runner, 2, retries=2, **hooks)
    outcome(task_runner, 9, retries=2, **hooks)
    assert seen == [("Completed", 3), ("Failed", 3)]


def test_dependents_wait_for_the_last_attempt(task_runner):
    work = Failing(2)

    @flow(task_runner=task_runner)
    def my_flow():
        return task(lambda n: n + 100)(task(retries=2, retry_delay_seconds=0.001)(work)())

    assert my_flow() == 103


def test_a_run_that_waits_for_its_retry_can_be_cancelled(announced):
    @task(retries=1, retry_delay_seconds=1_000)
    def work():
        raise ValueError("text")

    @flow(task_runner="concurrent")
    def my_flow():
        future = work()
        assert announced.wait(10)
        assert future.cancel() is True
        return repr(future.wait())

    assert my_flow() == "Cancelled(message='Task run was cancelled.', type=CANCELLED)"


def test_the_values_of_the_arguments_are_there_for_each_attempt(task_runner):
    seen = []

    @task
    def one():
        return 1

    @task(retries=2, retry_delay_seconds=0.001)
    def work(value, values):
        seen.append((value, tuple(values)))
        if len(seen) < 3:
            raise ValueError("not yet")

    @flow(task_runner=task_runner)
    def my_flow():
        work(one(), [one(), 2])

    my_flow()
    assert seen == [(1, (1, 2))] * 3


def test_a_log_filter_that_raises_at_the_news_of_a_retry_leaves_no_run_without_an_end(task_runner):
    attempts = []

    @task(retries=1)
    def work():
        attempts.append(1)
        if len(attempts) == 1:
            raise ValueError("not yet")
        return 3

    def raising(record):
        if "is tried again" in record.getMessage():
            raise RuntimeError("a broken filter")
        return True

    @flow(task_runner=task_runner)
    def my_flow():
        future = work()
        return future.wait().name

    logger = logging.getLogger("riverrun.task_runs")
    logger.addFilter(raising)
    try:
        assert my_flow() == "Completed"
    finally:
        logger.removeFilter(raising)
