"""Attempts at a task run: how its function is called, in this thread, on this loop, or by an executor that takes calls.

An attempt begins with `claim`, which one thread gets and no other, and ends in `end`, with an outcome. Its number tells
it from those before: what an attempt that was given up still brings, comes too late and is dropped.
"""

from __future__ import annotations

import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

from riverrun import _async, _inputs, _logging, _timers
from riverrun._calls import TaskCall, TaskScope
from riverrun._context import current_scope
from riverrun._endings import failed, is_cancellation, lost, not_taken
from riverrun._execution import call_in_scope, execute, execute_async, from_user_code, timed_out
from riverrun._futures import TaskFuture, TaskRun
from riverrun._outcomes import Outcome, unpack
from riverrun.states import COMPLETED, PENDING, RETRYING, RUNNING, Cancelled, Elsewhere, State, StateType

if TYPE_CHECKING:
    from concurrent.futures import Future
    from contextvars import Context

    from riverrun._engine import Home
    from riverrun._observation import Observation
    from riverrun._tasks import Task

NOTHING: Final[tuple[Any, ...]] = ()
NO_KEYWORDS: Final[dict[str, Any]] = {}


class Attempts:
    """The attempts at one task run; also the scope in which the task's code runs in this process."""

    is_flow = False
    # What most runs never change stands here once, instead of in each of them.
    annotated = False
    """Whether there are futures or annotations among the arguments."""
    stopped = False
    """Whether somebody asked for that."""
    cancelled = False
    """Whether it is not to be tried again."""
    nested: Home | None = None
    surroundings: tuple[Any, ...] = ()
    """What observers want to be around the function."""

    def __init__(
        self, home: Home, task: Task[Any, Any], run: TaskRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.home = home
        self.task = task
        self.run = run
        self.args = args
        self.kwargs = kwargs or NO_KEYWORDS
        self.future: TaskFuture[Any] = TaskFuture(run, self)
        self.context: Context = copy_context()
        self._upstreams: Any = NOTHING
        self.state: State = PENDING
        """The present state; the final one is the record's."""
        self.attempt = 0
        """Rises when an attempt starts and when one is given up: what ends with an older number comes too late."""
        self.handle: Any = None
        """What `_async.stop` takes to stop a running attempt."""

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self.run.name

    @property
    def awaits(self) -> bool:
        """Say whether the code inside is a coroutine."""
        return self.task.is_async

    @property
    def log_prints(self) -> bool | None:
        """Say what to do with prints: log them, or let them through; None where the flow does not log them either."""
        around = self.home.log_prints
        wanted = around if self.task.log_prints is None else self.task.log_prints
        return True if wanted else (False if around else None)

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Give what log records say of the run."""
        return "Task run", self.run.name, self.log_fields()

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run's log records."""
        run = self.run
        return {**self.home.log_fields(), "task_run_name": run.name, "task_run_id": run.id, "task_name": run.task_name}

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments with the values of the upstreams in their places."""
        if not self.annotated:
            return self.args, self.kwargs
        args = tuple(
            [
                # The common case stands here: a future that is an argument itself, and has completed.
                value._value  # noqa: SLF001
                if type(value) is TaskFuture
                and value._run.final is COMPLETED  # noqa: SLF001
                and not isinstance(value._value, Elsewhere)  # noqa: SLF001
                else _inputs.replace(value, _value_of)
                for value in self.args
            ]
        )
        if not self.kwargs:
            return args, self.kwargs
        return args, {name: _inputs.replace(value, _value_of) for name, value in self.kwargs.items()}

    def claim(self, *, starts: bool = True) -> int:
        """Begin an attempt: give its number, or 0 if somebody else has begun it or the run is final.

        Args:
            starts: false where the call may still wait inside an executor.
        """
        run = self.run
        if self.home.queued.pop(run.number, None) is None or run.final is not None:
            return 0
        self.attempt = attempt = self.attempt + 1
        run.run_count += 1
        if run.run_count > 1:
            self.state = RETRYING
        elif starts:
            run.start_time = time.time()
            self.state = RUNNING
        if self.home.observed is not None:
            self._tell_attempt(self.home.observed)
        return attempt

    def _tell_attempt(self, observed: Observation) -> None:
        with self.run.lock:
            if self.run.final is None and self.state is not PENDING:
                observed.task_run_state_changed(self.run, self.state, time.time())
        self.surroundings = observed.around_task_run(self.run)

    def __call__(self) -> None:
        """Run the task in this thread, if nobody has: the job that a `LocalTaskExecutor` takes."""
        task = self.task
        if not task.is_plain or not self.home.is_plain:
            while (delay := self.run_once()) is not None:
                _timers.clock.sleep(delay)
            return
        attempt = self.claim()
        if not attempt:
            return
        try:
            args, kwargs = self.arguments() if self.annotated else (self.args, self.kwargs)
            value = self.context.run(call_in_scope, self, task.fn, args, kwargs)
        except BaseException as error:  # noqa: BLE001 - `end` knows what to do with each kind
            self.end(attempt, Outcome(None, from_user_code(error)))
            return
        if isinstance(value, State):
            self.end(attempt, Outcome(value))
        else:
            self.finish(COMPLETED, value, attempt)

    def run_once(self) -> float | None:
        """Make one attempt in this thread; give the delay in seconds if this thread is to make another."""
        attempt = self.claim()
        if not attempt:
            return None
        try:
            args, kwargs = self.arguments()
        except Exception as error:  # noqa: BLE001 - an unhashable value for a set, say
            return self.end(attempt, Outcome(None, error))
        timeout = self.task.timeout_seconds
        if timeout is not None and self.home.retries_in_place:
            return self.end(attempt, self._execute_within(timeout, attempt, args, kwargs))
        if timeout is not None:
            self.home.timers.call_later(timeout, lambda: self.overrun(attempt, timeout))
        return self.end(attempt, self.context.run(execute, self, self.task.fn, args, kwargs))

    def _execute_within(self, timeout: float, attempt: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Outcome:
        """Execute in the flow's own thread: it is interrupted at the deadline, if that is possible there."""
        from riverrun._deadlines import interrupted_after

        passed = threading.Event()

        def overrun() -> None:
            passed.set()
            self._overrun_here(attempt, timeout)

        self.home.timers.call_later(timeout, overrun)
        with interrupted_after(timeout) as deadline:
            outcome = self.context.run(execute, self, self.task.fn, args, kwargs)
        return Outcome(None, timed_out(timeout)) if deadline.passed or passed.is_set() else outcome

    async def run_async(self) -> None:
        """Run the task on this loop, if nobody has: the job that makes a coroutine."""
        handle = self.handle or _async.asyncio_task()
        if handle is None or not self.task.is_plain or not self.home.is_plain:
            await self._run_async_slowly()
            return
        # An attempt is no more than a call: what follows is `run_async_once` without what most runs do not need.
        attempt = self.claim()
        if not attempt:
            return
        current_scope.set(self)  # this coroutine has a context of its own
        self.handle = handle
        try:
            args, kwargs = self.arguments() if self.annotated else (self.args, self.kwargs)
            value = await self.task.fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - `end` knows what to do with each kind
            self._end_async(attempt, Outcome(None, from_user_code(error)))
            return
        if isinstance(value, State):
            self.end(attempt, Outcome(value))
        else:
            self.handle = None
            self.finish(COMPLETED, value, attempt)

    async def _run_async_slowly(self) -> None:
        while (delay := await self.run_async_once()) is not None:
            try:
                await _timers.clock.sleep_async(delay)
            except BaseException:  # cancelled between two attempts
                self.finish(Cancelled("Task run was cancelled."))
                raise

    async def run_async_once(self) -> float | None:
        """Make one attempt on this loop; give the delay in seconds if this coroutine is to make another."""
        attempt = self.claim()
        if not attempt:
            return None
        try:
            args, kwargs = self.arguments()
        except Exception as error:  # noqa: BLE001
            return self.end(attempt, Outcome(None, error))
        timeout = self.task.timeout_seconds
        if timeout is not None:  # the loop has this deadline too, but no loop can stop a coroutine that blocks it
            self.home.timers.call_later(timeout, lambda: self._overrun_here(attempt, timeout))
        body = execute_async(self, self.task.fn, args, kwargs, self.task.timeout_seconds)
        self.handle = _async.asyncio_task()
        if self.handle is None:
            self.handle = cancellation = _async.TrioCancellation()
            with cancellation.scope:
                outcome = await body
        else:
            outcome = await body
        return self._end_async(attempt, outcome)

    def _end_async(self, attempt: int, outcome: Outcome) -> float | None:
        asked_for = self.stopped or attempt != self.attempt
        delay = self.end(attempt, outcome)
        if outcome.error is not None and is_cancellation(outcome.error) and not asked_for:
            raise outcome.error  # the loop itself is being stopped, and has to know that we obey
        return delay

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskCall:
        """Make the message for an executor that takes calls."""
        run = self.run
        scope = TaskScope(run.name, self.log_prints, self.log_fields(), awaits=self.task.is_async)
        if self.surroundings:
            scope.surroundings = self.surroundings
        return TaskCall(
            body=self.task,
            args=args,
            kwargs=kwargs,
            scope=scope,
            key=f"{run.task_name}-{run.id}-{self.attempt}",
            timeout=self.task.timeout_seconds,
            context=self.context.copy(),  # the submitting thread is inside the other one
            resources=self.task.resources,
            runner_options=self.task.runner_options,
        )

    def started(self, attempt: int) -> None:
        """Note that an executor has begun a call: from here on its time counts."""
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return
            if self.run.run_count == 1:
                self._begins(time.time())
        timeout = self.task.timeout_seconds
        if timeout is not None:
            self.home.timers.call_later(timeout, lambda: self.overrun(attempt, timeout))

    def begun(self, attempt: int, start_time: float) -> None:
        """Note that a worker says it has begun a call; the worker itself sees to its time limit."""
        with self.run.lock:
            if attempt == self.attempt and self.run.final is None and self.run.run_count == 1:
                self._begins(start_time)

    def _begins(self, start_time: float) -> None:
        told, self.state = self.state is RUNNING, RUNNING
        self.run.start_time = start_time
        if not told and self.home.observed is not None:
            self.home.observed.task_run_state_changed(self.run, RUNNING, start_time)

    def present_state(self) -> State:
        """Give the state of a run that is not final."""
        if self.state is PENDING:
            running = getattr(self.handle, "running", None)  # the future of an executor knows whether it has begun
            if running is not None and running():
                return RUNNING
        return self.state

    def returned(self, attempt: int, future: Future[Outcome]) -> None:
        """Take what an executor's future has."""
        try:
            self._take(attempt, future)
        except Exception as error:  # noqa: BLE001 - nobody would see it here, and the run would never end
            self.finish(not_taken(self.run.name, error), attempt=attempt)

    def _take(self, attempt: int, future: Future[Outcome]) -> None:
        if future.cancelled():
            self.finish(Cancelled("Task run was cancelled."), attempt=attempt)
            return
        error = future.exception()
        run = self.run
        if error is not None:
            self.end(attempt, Outcome(None, lost(run.name, run.run_count, error)))
            return
        outcome: Any = future.result()  # executors are written by others
        if not isinstance(outcome, Outcome):
            msg = f"it gave {type(outcome).__name__!r} for the call, which returns an Outcome"
            raise TypeError(msg)
        self.took(attempt, outcome)

    def took(self, attempt: int, outcome: Outcome) -> None:
        """Take what a worker has sent back."""
        run = self.run
        if not outcome.kept:
            outcome = unpack(outcome, run.name)
        if outcome.records:
            _logging.replay(outcome.records, {**self.log_fields(), "worker": outcome.worker})
            outcome.records = None
        if run.run_count == 1 and outcome.start_time is not None:
            run.start_time = outcome.start_time
            if self.home.observed is not None:  # who has not heard that it began, hears that before its end
                self.begun(attempt, outcome.start_time)
        self.end(attempt, outcome)

    def overrun(self, attempt: int, timeout: float) -> None:
        """Give up an attempt at its deadline: its slot goes to others, and what it still brings is dropped."""
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return
            self.attempt = attempt = attempt + 1
            self.context = self.context.copy()  # the old one may be in use as long as the old attempt's thread is
        self._release()
        self.end(attempt, Outcome(None, timed_out(timeout)))

    def _overrun_here(self, attempt: int, timeout: float) -> None:
        """Give up an attempt; where the next one belongs to the same thread or coroutine, only the last one."""
        if not self.home.retries_in_place:
            self.overrun(attempt, timeout)
        elif attempt == self.attempt and self.run.run_count > self.task.retries:
            self.finish(failed(timed_out(timeout)), attempt=attempt)

    def _release(self) -> None:
        """Stop the present attempt if that can be done; else let the executor stop counting on it."""
        handle, self.handle = self.handle, None
        self.stopped = True
        if handle is None or not _async.stop(handle):
            self.home.abandon(self)

    def end(self, attempt: int, outcome: Outcome) -> float | None:
        """Take the outcome of an attempt; give the delay in seconds if the caller is to make another."""
        raise NotImplementedError

    def finish(self, state: State, value: Any = None, attempt: int | None = None) -> bool:
        """Make a state the final one; false if there is a final one already."""
        raise NotImplementedError

    def help(self, *, run_it: bool) -> None:
        """Tell the executor that this thread is going to wait; run the task here if it has not started."""
        raise NotImplementedError

    def cancel(self) -> bool:
        """Cancel it if it has not started, or if it can be stopped."""
        raise NotImplementedError


def _value_of(upstream: Any, may_fail: bool) -> Any:  # noqa: ARG001, FBT001
    if isinstance(upstream, TaskFuture):
        state = upstream._run.final  # noqa: SLF001
        assert state is not None, "arguments are looked at when every upstream is final"  # noqa: S101 - a promise
        if not state.is_completed():
            return state.exception()
        value = upstream._value  # noqa: SLF001
        return value.fetch() if isinstance(value, Elsewhere) else value
    state = upstream
    return state.data if state.type is StateType.COMPLETED else state.exception()
