"""One task run on its way from the call to its final state.

What happens to it may come from many threads: the flow's, a worker's, a timer's, one that cancels. The common way
takes no lock: a lock that every task takes is one that all threads queue for, and each of them gives up the
interpreter while it waits. Two operations on dicts, which are atomic, decide who may do what:

* `home.queued.pop(number)`: whoever gets the submission may begin the attempt (or cancel it).
* `home.live.pop(number)`: whoever gets it may end the run; there is one final state.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol

from riverrun import _async, _inputs, _logging, _names
from riverrun._calls import (
    Outcome,
    TaskCall,
    TaskScope,
    call_in_scope,
    execute,
    execute_async,
    from_user_code,
    timed_out,
    unpack,
)
from riverrun._context import current_scope
from riverrun._endings import failed, is_cancellation, is_interrupt, lost, not_ready, not_taken, returned, run_hook
from riverrun._futures import TaskFuture, TaskRun, call_back
from riverrun.exceptions import RunTimeout, WorkerLost
from riverrun.states import COMPLETED, PENDING, RETRYING, RUNNING, AwaitingRetry, Cancelled, State, StateType

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from contextvars import Context

    from riverrun._engine import Home
    from riverrun._tasks import Task


class Gate(Protocol):
    """Decides when, and with what, a submission is dispatched."""

    def enter(self, job: Submission) -> None:
        """Take a submission that is ready."""
        ...

    def leave(self, job: Submission) -> None:
        """Note that a submission is final."""
        ...


_NOTHING: Final[tuple[Any, ...]] = ()
_NO_KEYWORDS: Final[dict[str, Any]] = {}


class Submission:
    """A task run on its way to its final state; also the scope in which the task's code runs in this process."""

    is_flow = False
    # What most runs never change stands here once, instead of in each of them.
    gate: Gate | None = None
    in_gate = False
    annotated = False
    """Whether there are futures or annotations among the arguments."""
    stopped = False
    """Whether somebody asked for that."""
    nested: Home | None = None
    cache_key: tuple[str, str] | None = None
    waiting = False
    """Whether it waits for an upstream, a gate or a timer, and was not dispatched."""
    _countdown: Any = None

    def __init__(
        self, home: Home, task: Task[Any, Any], run: TaskRun, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.home = home
        self.task = task
        self.run = run
        self.args = args
        self.kwargs = kwargs or _NO_KEYWORDS
        self.future: TaskFuture[Any] = TaskFuture(run, self)
        self.context: Context = copy_context()
        self._upstreams: Any = _NOTHING
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

    # -- before it runs

    def await_upstreams(self, upstreams: list[tuple[Any, bool]]) -> None:
        """Go on when every upstream is final; each comes with "may it fail?"."""
        self._upstreams = upstreams
        self.waiting = True
        pending = [up for up, _ in upstreams if isinstance(up, TaskFuture) and up._run.final is None]  # noqa: SLF001
        if len(pending) == 1:
            if not pending[0]._add_callback(self._only_upstream_done):  # noqa: SLF001
                self.ready()
            return
        # Each upstream takes one number, on its own thread; who gets 0 is the last. It starts one higher than there
        # are, so that nobody is before all are registered.
        self._countdown = iter(range(len(pending), -1, -1))
        for upstream in pending:
            if not upstream._add_callback(self._upstream_done):  # noqa: SLF001
                self._upstream_done(upstream)
        self._upstream_done(None)

    def _only_upstream_done(self, _: object) -> None:
        if self.run.final is None:
            self.ready()

    def _upstream_done(self, _: object) -> None:
        if next(self._countdown) == 0 and self.run.final is None:
            self.ready()

    def ready(self) -> None:
        """Run it if its upstreams allow that."""
        for upstream, may_fail in self._upstreams:
            state = upstream if isinstance(upstream, State) else upstream._run.final  # noqa: SLF001
            if state.type is not StateType.COMPLETED and not may_fail:
                self.finish(not_ready(upstream, state))
                return
        if self.task.needs_parameters and not self._named_and_not_cached():
            return
        if self.gate is None:
            self.dispatch()
        else:
            self.gate.enter(self)

    def _named_and_not_cached(self) -> bool:
        """Render a name of the user's and look into the cache; false if that ended the run."""
        try:
            args, kwargs = self.arguments()
            parameters = self.task.parameters(args, kwargs)
            name = _names.render(self.task.task_run_name, parameters, option="task_run_name")
            if name is not None:
                self.run._name = name  # noqa: SLF001
            cached = self.task.cache.look_up(self, parameters) if self.task.cache else None
        except Exception as error:  # noqa: BLE001 - the user's template, callable or key function
            self.finish(failed(error))
            return False
        if cached is not None:
            self.finish(cached.with_data(None), cached.data)
            return False
        return True

    def dispatch(self, to: Callable[[Submission], object] | None = None) -> None:
        """Hand it to the executor, or to something else that runs it."""
        home, run = self.home, self.run
        if home.logs_info and run.run_count == 0:
            _logging.task_logger.info("Submitting task run %r to task runner...", run.name, extra=self.log_fields())
        if self.waiting:
            with run.lock:  # `cancel` looks at `waiting` under the same lock
                self.waiting = False
                if run.final is not None:
                    return
        home.queued[run.number] = self
        try:
            (home.dispatch if to is None else to)(self)
        except Exception as error:  # noqa: BLE001 - the executor is broken or stopped; the run must end all the same
            self.finish(not_taken(run.name, error))

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments with the values of the upstreams in their places."""
        if not self.annotated:
            return self.args, self.kwargs
        return (
            tuple([_inputs.replace(value, _value_of) for value in self.args]),
            {name: _inputs.replace(value, _value_of) for name, value in self.kwargs.items()},
        )

    # -- while it runs

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
        return attempt

    def __call__(self) -> None:
        """Run the task in this thread, if nobody has: the job that a `LocalTaskExecutor` takes."""
        task = self.task
        if not task.is_plain or self.home.log_prints is not None:
            while (delay := self.run_once()) is not None:
                time.sleep(delay)
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
        if handle is None or not self.task.is_plain or self.home.log_prints is not None:
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
            import anyio

            await anyio.sleep(delay)

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
        delay = self.end(attempt, outcome)
        if outcome.error is not None and is_cancellation(outcome.error) and not self.stopped:
            raise outcome.error  # the loop itself is being stopped, and has to know that we obey
        return delay

    def call(self) -> TaskCall:
        """Make the message for an executor that takes calls."""
        args, kwargs = self.arguments()
        run = self.run
        return TaskCall(
            body=self.task,
            args=args,
            kwargs=kwargs,
            scope=TaskScope(run.name, self.log_prints, self.log_fields(), awaits=self.task.is_async),
            key=f"{run.task_name}-{run.id}-{self.attempt}",
            timeout=self.task.timeout_seconds,
            context=self.context.copy(),  # the submitting thread is inside the other one
        )

    def started(self, attempt: int) -> None:
        """Note that an executor has begun a call: from here on its time counts."""
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return
            if self.run.run_count == 1:
                self.state = RUNNING
                self.run.start_time = time.time()
        timeout = self.task.timeout_seconds
        if timeout is not None:
            self.home.timers.call_later(timeout, lambda: self.overrun(attempt, timeout))

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
        outcome = unpack(outcome, run.name)
        if outcome.records:
            _logging.replay(outcome.records, {**self.log_fields(), "worker": outcome.worker})
            outcome.records = None
        if run.run_count == 1 and outcome.start_time is not None:
            run.start_time = outcome.start_time
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

    # -- after an attempt

    def end(self, attempt: int, outcome: Outcome) -> float | None:
        """Take the outcome of an attempt; give the delay in seconds if the caller is to make another."""
        if attempt == self.attempt:
            self.handle = None
        error = outcome.error
        if error is None:
            value = outcome.value
            if isinstance(value, State):
                self.finish(*returned(value), attempt=attempt)
            else:
                if self.task.cache is not None and attempt == self.attempt:
                    self.task.cache.store(self, value)
                self.finish(COMPLETED, value, attempt)
            return None
        state = failed(error)
        if state.is_failed() or isinstance(error, WorkerLost):
            delay = self._delay_before_retry(attempt, state)
            if delay is not None:
                return self._try_again(attempt, state, delay)
        self.finish(state, attempt=attempt)
        if is_interrupt(error):
            raise error
        return None

    def _delay_before_retry(self, attempt: int, state: State) -> float | None:
        task = self.task
        if self.run.run_count > task.retries or attempt != self.attempt or self.home.closed is not None:
            return None
        condition = task.retry_condition_fn
        if condition is not None:
            try:
                if not condition(task, self.run, state):
                    return None
            except Exception:  # noqa: BLE001 - a user's function may raise anything
                _logging.task_logger.exception(
                    "retry_condition_fn of task run %r raised: it is not tried again.",
                    self.run.name,
                    extra=self.log_fields(),
                )
                return None
        return task.retry_delay(self.run.run_count)

    def _try_again(self, attempt: int, state: State, delay: float) -> float | None:
        in_place = self.home.retries_in_place
        with self.run.lock:
            if attempt != self.attempt or self.run.final is not None:
                return None
            self.state = AwaitingRetry(state.message, state.data)
            self.context = self.context.copy()  # the attempt that has failed may still be inside the old one
            self.waiting = not in_place
            self.context = self.context.copy()  # a coroutine that ends here is still inside the old one
        _logging.task_logger.warning(
            "Task run %r failed in attempt %d of %d and is tried again in %.3g seconds: %s",
            self.run.name, self.run.run_count, self.task.retries + 1, delay, state.message, extra=self.log_fields(),
        )  # fmt: skip
        if in_place:
            self.home.queued[self.run.number] = self
            return delay
        if delay:
            self.home.timers.call_later(delay, self.dispatch)
        else:
            self.dispatch()
        return None

    def finish(self, state: State, value: Any = None, attempt: int | None = None) -> bool:
        """Make a state the final one, and tell those who wait for it; false if there is a final one already."""
        home, run, future = self.home, self.run, self.future
        if attempt is not None and attempt != self.attempt:
            return False
        tells = state is not COMPLETED or home.logs_info or self.gate is not None or self.task.has_hooks
        mark = None
        if tells:  # while this mark is there, the flow is not at its end: hooks belong to it
            mark = object()
            home.finishing.add(mark)
        first = home.live.pop(run.number, None) is not None
        if first:
            future._value = value  # noqa: SLF001
            run.end_time = time.time()
            run.final = state
            future._job = None  # noqa: SLF001
            if tells:
                self._announce(state, future)
            if future._callbacks is not None:  # noqa: SLF001
                _cascade(future)
            # The inputs go now: what holds on to this object later (a timer, a pool's queue) keeps no data alive.
            self.args = self._upstreams = _NOTHING
            self.kwargs = _NO_KEYWORDS
            self.context = self.future = None  # type: ignore[assignment]
        if tells:
            home.finishing.discard(mark)
        if home.when_idle_then is not None:
            home.tell_if_idle()
        return first

    def _announce(self, state: State, future: TaskFuture[Any]) -> None:
        logger = _logging.task_logger
        bad = state.is_failed() or state.is_crashed()
        level = logging.INFO if state.is_completed() else logging.ERROR if bad else logging.WARNING
        if logger.isEnabledFor(level):
            error = state.data if state.is_failed() else None
            if isinstance(error, BaseException) and not isinstance(error, RunTimeout):
                logger.error(
                    "Task run %r encountered an exception:", self.run.name, exc_info=error, extra=self.log_fields()
                )
            logger.log(level, "Task run %r finished in state %r", self.run.name, state, extra=self.log_fields())
        if self.gate is not None:
            self.gate.leave(self)
        for hook in self.task.hooks_for(state):
            run_hook(hook, self.task, self.run, future.state)

    # -- from outside

    def help(self) -> None:
        """Run it in the calling thread, if it has not started and a slot is free."""
        helper = self.home.helper
        if (
            helper is not None
            and self.run.number in self.home.queued
            and not self.task.is_async
            and self.task.timeout_seconds is None
        ):
            helper(self)

    def cancel(self) -> bool:
        """Cancel it if it has not started, or if it can be stopped."""
        with self.run.lock:  # `dispatch` changes `waiting` under the same lock
            not_begun = self.waiting or self.home.queued.pop(self.run.number, None) is not None
            self.waiting = False
        if not_begun:
            return self.finish(Cancelled("Task run was cancelled."))
        handle = self.handle
        # The state follows when the executor, or the coroutine, has stopped.
        if handle is None:
            return False
        self.stopped = True
        return _async.stop(handle)

    def abort(self, state: State) -> None:
        """End it now: it takes this state, and what its code still does is nobody's concern."""
        if self.cancel() and self.run.final is not None:
            return
        with self.run.lock:
            self.attempt += 1
        self._release()
        self.finish(state)


def _value_of(upstream: Any, may_fail: bool) -> Any:  # noqa: ARG001, FBT001
    if isinstance(upstream, TaskFuture):
        state = upstream._run.final  # noqa: SLF001
        assert state is not None, "arguments are looked at when every upstream is final"  # noqa: S101 - a promise
        return upstream._value if state.type is StateType.COMPLETED else state.exception()  # noqa: SLF001
    state = upstream
    return state.data if state.type is StateType.COMPLETED else state.exception()


def _cascade(future: TaskFuture[Any]) -> None:
    """Call the callbacks of a future that is final.

    A callback may end another run, whose callbacks end more: they form a queue here, not a recursion, so that a chain
    of 10,000 runs that are not ready needs no deep stack.
    """
    queue = _cascading.queue
    if queue is not None:
        queue.append(future)
        return
    queue = _cascading.queue = deque()
    try:
        while True:
            for callback in future._take_callbacks():  # noqa: SLF001
                call_back(callback, future)
            if not queue:
                return
            future = queue.popleft()
    finally:
        _cascading.queue = None


class _Cascading(threading.local):
    queue: deque[TaskFuture[Any]] | None = None


_cascading = _Cascading()
