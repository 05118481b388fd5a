"""Ways to run a task: in this thread, on this loop; and the call that an executor takes, and its outcome."""

from __future__ import annotations

import threading
from typing import Any

from riverrun import _async, _logging, _timers
from riverrun._calls import TaskCall, TaskScope
from riverrun._context import current_scope
from riverrun._endings import failed, is_cancellation
from riverrun._execution import call_in_scope, execute, execute_async, from_user_code, timed_out
from riverrun._outcomes import Outcome, unpack
from riverrun._pending_run import PendingRun
from riverrun._steps import arguments, complete, end, overrun, set_final, tell
from riverrun.states import Cancelled, State


def _observers_around(run: PendingRun) -> None:
    if run.home.observed is not None:
        run.surroundings = run.home.observed.around_task_run(run.run, run.run.run_count)


# -- in this thread


def run_here(run: PendingRun) -> None:
    """Run a task in this thread, if nobody has."""
    task = run.task
    if not task.is_plain or not run.home.is_plain:
        while (delay := run_once(run)) is not None:
            _timers.clock.sleep(delay)
        return
    attempt = run.try_start()
    if not attempt:
        return
    try:
        args, kwargs = arguments(run) if run.annotated else (run.args, run.kwargs)
        value = run.context.run(call_in_scope, run, task.fn, args, kwargs)
    except BaseException as error:  # noqa: BLE001 - `end` knows what to do with each kind
        end(run, attempt, Outcome(None, from_user_code(error)))
        return
    if isinstance(value, State):
        end(run, attempt, Outcome(value))
    else:
        complete(run, value, attempt)


def run_once(run: PendingRun) -> float | None:
    """Make one attempt in this thread; return the delay in seconds if this thread is to make another."""
    attempt = run.try_start()
    if not attempt:
        return None
    _observers_around(run)
    try:
        args, kwargs = arguments(run)
    except Exception as error:  # noqa: BLE001 - an unhashable value for a set, say
        return end(run, attempt, Outcome(None, error))
    timeout = run.task.timeout_seconds
    if timeout is not None and run.home.dispatch.in_place:
        return end(run, attempt, _execute_within(run, timeout, attempt, args, kwargs))
    if timeout is not None:
        run.home.timers.call_later(timeout, lambda: overrun(run, attempt, timed_out(timeout)))
    return end(run, attempt, run.context.run(execute, run, run.task.fn, args, kwargs))


def _execute_within(
    run: PendingRun, timeout: float, attempt: int, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Outcome:
    """Execute in the flow's own thread: it is interrupted at the deadline, if that is possible there."""
    from riverrun._deadlines import interrupted_after

    passed = threading.Event()

    def deadline_passed() -> None:
        passed.set()
        _overrun_in_place(run, attempt, timeout)

    run.home.timers.call_later(timeout, deadline_passed)
    with interrupted_after(timeout) as deadline:
        outcome = run.context.run(execute, run, run.task.fn, args, kwargs)
    return Outcome(None, timed_out(timeout)) if deadline.passed or passed.is_set() else outcome


def _overrun_in_place(run: PendingRun, attempt: int, timeout: float) -> None:
    """Give up an attempt; where the next one belongs to the same thread or coroutine, only the last one."""
    if not run.home.dispatch.in_place:
        overrun(run, attempt, timed_out(timeout))
    elif attempt == run.attempt and run.failures >= run.task.retries:
        set_final(run, failed(timed_out(timeout)), attempt=attempt)


# -- on this loop


async def run_on_loop(run: PendingRun) -> None:
    """Run a task on this loop, if nobody has."""
    task = _async.asyncio_task()
    if task is None or not run.task.is_plain or not run.home.is_plain:
        while (delay := await _run_on_loop_once(run, task)) is not None:
            try:
                await _timers.clock.sleep_async(delay)
            except BaseException:  # cancelled between two attempts
                set_final(run, Cancelled("Task run was cancelled."))
                raise
        return
    # An attempt is no more than a call: what follows is `_run_on_loop_once` without what most runs do not need.
    attempt = run.try_start(_async.TaskCancellation(task))
    if not attempt:
        return
    current_scope.set(run)  # this coroutine has a context of its own
    try:
        args, kwargs = arguments(run) if run.annotated else (run.args, run.kwargs)
        value = await run.task.fn(*args, **kwargs)
    except BaseException as error:  # noqa: BLE001 - `end` knows what to do with each kind
        _end_on_loop(run, attempt, Outcome(None, from_user_code(error)))
        return
    if isinstance(value, State):
        end(run, attempt, Outcome(value))
    else:
        complete(run, value, attempt)


async def _run_on_loop_once(run: PendingRun, task: Any) -> float | None:
    """Make one attempt on this loop; return the delay in seconds if this coroutine is to make another."""
    cancellation = None if task is not None else _async.TrioCancellation()
    attempt = run.try_start(cancellation or _async.TaskCancellation(task))
    if not attempt:
        return None
    _observers_around(run)
    try:
        args, kwargs = arguments(run)
    except Exception as error:  # noqa: BLE001
        return end(run, attempt, Outcome(None, error))
    timeout = run.task.timeout_seconds
    if timeout is not None:  # the loop has this deadline too, but no loop can stop a coroutine that blocks it
        run.home.timers.call_later(timeout, lambda: _overrun_in_place(run, attempt, timeout))
    body = execute_async(run, run.task.fn, args, kwargs, run.task.timeout_seconds)
    if cancellation is not None:
        with cancellation.scope:
            outcome = await body
    else:
        outcome = await body
    return _end_on_loop(run, attempt, outcome)


def _end_on_loop(run: PendingRun, attempt: int, outcome: Outcome) -> float | None:
    asked_for = run.cancelled or run.stopping > 0 or attempt != run.attempt or run.run.final is not None
    delay = end(run, attempt, outcome)
    if outcome.error is not None and is_cancellation(outcome.error) and not asked_for:
        raise outcome.error  # the loop itself is being stopped, and has to know that we obey
    return delay


# -- elsewhere


def call_for(run: PendingRun, attempt: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskCall:
    """Make the message for an executor that takes calls."""
    record, task = run.run, run.task
    if run.home.observed is not None:
        run.surroundings = run.home.observed.around_task_run(record, record.run_count + 1)
    scope = TaskScope(record.name, run.log_prints, run.log_fields(), awaits=task.is_async)
    if run.surroundings:
        scope.surroundings = run.surroundings
    return TaskCall(
        body=task,
        args=args,
        kwargs=kwargs,
        scope=scope,
        key=f"{record.task_name}-{record.id}-{attempt}",
        timeout=task.timeout_seconds,
        context=run.context.copy(),  # the submitting thread is inside the other one
        resources=task.resources,
        runner_options=task.runner_options,
    )


def took(run: PendingRun, attempt: int, outcome: Outcome) -> None:
    """Take what a worker has sent back."""
    if not outcome.kept:
        outcome = unpack(outcome, run.run.name)
    if outcome.records:
        records, fields = outcome.records, {**run.log_fields(), "worker": outcome.worker}
        outcome.records = None
        tell(run, lambda: _logging.replay(records, fields))
    if outcome.start_time is not None:  # who has not heard that it began, hears that before its end
        run.begun(attempt, outcome.start_time)
    end(run, attempt, outcome)


class Job(PendingRun):
    """A task run that is its own job, so that nothing is made for the trip to an executor in this process."""

    __call__ = run_here
    run_async = run_on_loop
