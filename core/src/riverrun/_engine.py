"""The life of a task run, from the call to its final state.

::

    home.submit(task, args)                        a flow run, or a task run in whose body a task is called
        TaskRun, TaskFuture, Submission            record, what the user holds, what the engine works on
        upstreams pending?  --- yes ---> counted; the last upstream's callback goes on
               | no                                        |
        Submission.ready  <--------------------------------+
               |  an upstream did not complete -> NotReady        value in the cache -> Cached
               v
        home.dispatch(submission)                  the one place that knows the executor (`_dispatch`)
               v
        claim -> execute -> end                    in whatever thread, loop or process
               |  failed, and may be tried again -> timer -> dispatch
               v
        finish: final state -> callbacks of the future -> dependents become ready

Nobody waits here: each step is called by the one before, on the thread where that one ended.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, Protocol

from riverrun import _async, _inputs, _logging, _names
from riverrun._calls import Outcome, TaskCall, TaskScope, execute, execute_async, timed_out, unpack
from riverrun._futures import TaskFuture, TaskRun, call_back
from riverrun._timers import Timers
from riverrun.exceptions import CancelledError, CrashedRun, MissingContextError, RunTimeout, WorkerLost
from riverrun.states import (
    COMPLETED,
    RETRYING,
    RUNNING,
    AwaitingRetry,
    Cancelled,
    Crashed,
    Failed,
    NotReady,
    State,
    StateType,
    TimedOut,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from contextvars import Context

    from riverrun._mapping import Source
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


class Home:
    """Where task runs belong: a flow run, or a task run in whose body tasks are called."""

    dispatch: Callable[[Submission], None]
    """Hands a ready submission to the executor."""
    retries_in_place = False
    """True where a run is tried again before the call returns: one at a time, in the order of the calls."""
    loop: _async.Loop | None = None
    helper: Callable[[Submission], object] | None = None
    """Runs a submission in the calling thread if a slot is free; None where nobody may help."""
    abandon: Callable[[Submission], object]
    """Tells the executor to stop counting on a submission that is running."""

    def __init__(self, log_prints: bool | None, depth: int) -> None:  # noqa: FBT001 - True or None, as for `execute`
        self.depth = depth
        """How many flow runs are around it."""
        self.id = _names.new_id()
        self.lock = threading.Lock()
        self.log_prints = log_prints
        self.runs: list[Any] = []
        """The records of all runs, in the order of submission."""
        self.live: dict[int, Submission] = {}
        """The submissions that have not reached a final state, by number."""
        self.unread: list[Source] = []
        """Generators of maps that have not been read to their end."""
        self.closed: State | None = None
        """Once nothing more may be submitted: the state that says why."""
        self.logs_info = _logging.task_logger.isEnabledFor(logging.INFO)
        self._indexes: dict[str, int] = {}
        self._timers: Timers | None = None
        self._when_idle: Callable[[], object] | None = None

    @property
    def label(self) -> str:
        """What to call it in an error."""
        raise NotImplementedError

    def log_fields(self) -> dict[str, Any]:
        """Give what log records of its task runs say of it."""
        raise NotImplementedError

    def submit(
        self,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        gate: Gate | None = None,
    ) -> TaskFuture[Any]:
        """Take a call of a task: give its future at once, and see that it runs when its upstreams are done."""
        task.check_arguments(args, kwargs)
        key = task.run_key
        with self.lock:
            if self.closed is not None:
                raise self._refusal(task)
            runs = self.runs
            number = len(runs) + 1
            index = self._indexes.get(key, 0)
            self._indexes[key] = index + 1
            run = TaskRun(self, task, number, index)
            runs.append(run)
            job = self.live[number] = Submission(self, task, run, args, kwargs, gate)
        future = job.future
        found = _inputs.find(args)
        if kwargs:
            found += _inputs.find(kwargs.values())
        if found:
            job.annotated = True
        if wait_for is not None:
            found += _inputs.find(wait_for)
        if found:
            job.await_upstreams(found)
        else:
            job.ready()
        return future

    def _refusal(self, task: Task[Any, Any]) -> Exception:
        if self.closed is not None and self.closed.is_cancelled():
            return CancelledError(f"Task {task.name!r} was called in {self.label}, which is being cancelled.")
        msg = f"Task {task.name!r} was called in {self.label}, which has ended. Call it while the flow runs, or `{task.name}.fn(...)`."
        return MissingContextError(msg)

    @property
    def timers(self) -> Timers:
        """The delays and deadlines of its runs."""
        with self.lock:
            if self._timers is None:
                self._timers = Timers()
            return self._timers

    def stop_timers(self) -> None:
        """End the timers' thread, if there is one."""
        if self._timers is not None:
            self._timers.stop()

    def when_idle(self, then: Callable[[], object]) -> bool:
        """Call `then` once no run is live; false, without a call, if none is now."""
        with self.lock:
            if not self.live:
                return False
            self._when_idle = then
            return True

    def forget(self, number: int) -> None:
        """Note that a submission, its hooks and its callbacks are done with."""
        then = None
        with self.lock:
            del self.live[number]
            if not self.live and self._when_idle is not None:
                then, self._when_idle = self._when_idle, None
        if then is not None:
            then()


class Submission:
    """A task run on its way to its final state; also the scope in which the task's code runs in this process."""

    __slots__ = (
        "_claimed",
        "_missing",
        "_upstreams",
        "annotated",
        "args",
        "attempt",
        "cache_key",
        "context",
        "future",
        "handle",
        "home",
        "in_gate",
        "kwargs",
        "log_prints",
        "nested",
        "run",
        "task",
        "gate",
    )
    is_flow = False

    def __init__(
        self,
        home: Home,
        task: Task[Any, Any],
        run: TaskRun,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        gate: Gate | None,
    ) -> None:
        self.home = home
        self.task = task
        self.run = run
        self.args = args
        self.kwargs = kwargs
        self.future: TaskFuture[Any] = TaskFuture(run, self)
        self.context: Context = copy_context()
        self.gate = gate
        self.in_gate = False
        self.annotated = False
        self.attempt = 0
        """Rises when an attempt starts and when one is given up: what ends with an older number comes too late."""
        self.handle: Any = None
        """What stops a running attempt: a future of the executor, or an asyncio task, or a trio cancel scope."""
        self.nested: Home | None = None
        self.cache_key: tuple[str, str] | None = None
        self._claimed = True  # until it is dispatched, nobody may run it
        self._missing = 0
        self._upstreams: Any = _NOTHING
        wanted = task.log_prints if task.log_prints is not None else home.log_prints
        self.log_prints = True if wanted else (False if home.log_prints else None)

    @property
    def name(self) -> str:
        """The name of the task run."""
        return self.run.name

    @property
    def awaits(self) -> bool:
        """Say whether the code inside is a coroutine."""
        return self.task.is_async

    def log_identity(self) -> tuple[str, str, dict[str, Any]]:
        """Give what log records say of the run."""
        return "Task run", self.run.name, self.log_fields()

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run's log records."""
        run = self.run
        return {**self.home.log_fields(), "task_run_name": run.name, "task_run_id": run.id, "task_name": run.task_name}

    # -- before it runs

    def await_upstreams(self, found: list[tuple[Any, bool]]) -> None:
        """Go on when every upstream is final."""
        upstreams = [(upstream, may_fail) for upstream, may_fail in found if not isinstance(upstream, _inputs.Annotation)]
        self._upstreams = upstreams
        pending = [upstream for upstream, _ in upstreams if isinstance(upstream, TaskFuture) and not upstream.done()]
        # One more than there are, so that the last one cannot end before all are registered.
        self._missing = len(pending) + 1
        for upstream in pending:
            if not upstream._add_callback(self._upstream_done):  # noqa: SLF001
                self._upstream_done(upstream)
        self._upstream_done(None)

    def _upstream_done(self, _: object) -> None:
        with self.home.lock:
            self._missing -= 1
            if self._missing or self.run.state._final:  # noqa: SLF001
                return
        self.ready()

    def ready(self) -> None:
        """Run it if its upstreams allow that."""
        for upstream, may_fail in self._upstreams:
            state = upstream if isinstance(upstream, State) else upstream._run.state  # noqa: SLF001
            if state.type is not StateType.COMPLETED and not may_fail:
                self.finish(_not_ready(upstream, state))
                return
        task = self.task
        if task.needs_parameters and not self._named_and_not_cached():
            return
        if self.gate is None:
            self.dispatch_with(self.home.dispatch)
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
            self.finish(_failed(error))
            return False
        if cached is not None:
            self.finish(cached.with_data(None), cached.data)
            return False
        return True

    def dispatch(self) -> None:
        """Hand it to the executor."""
        self.dispatch_with(self.home.dispatch)

    def dispatch_with(self, dispatch: Callable[[Submission], object]) -> None:
        """Hand it to whatever runs it."""
        if self.home.logs_info and self.run.run_count == 0:
            _logging.task_logger.info(
                "Submitting task run %r to task runner...", self.run.name, extra=self.log_fields()
            )
        self._claimed = False
        try:
            dispatch(self)
        except Exception as error:  # noqa: BLE001 - the executor is broken or stopped; the run must end all the same
            self.finish(_crashed(CrashedRun(f"The task runner did not take task run {self.run.name!r}: {error!r}."), error))

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Give the arguments with the values of the upstreams in their places."""
        if not self.annotated:
            return self.args, self.kwargs
        return (
            tuple([_inputs.replace(value, _resolved) for value in self.args]),
            {name: _inputs.replace(value, _resolved) for name, value in self.kwargs.items()},
        )

    # -- while it runs

    def claim(self, *, starts: bool = True) -> int:
        """Begin an attempt: give its number, or 0 if somebody else has begun it or the run is final.

        Args:
            starts: false where the call may still wait inside an executor.
        """
        run = self.run
        with self.home.lock:
            if self._claimed or run.state._final:  # noqa: SLF001
                return 0
            self._claimed = True
            self.attempt += 1
            run.run_count += 1
            if run.run_count > 1:
                run.state = RETRYING
            elif starts:
                run.start_time = time.time()
                run.state = RUNNING
            return self.attempt

    def __call__(self) -> None:
        """Run the task in this thread, if nobody has: the job that a `LocalTaskExecutor` takes."""
        while (delay := self.run_once()) is not None:
            time.sleep(delay)

    def run_once(self) -> float | None:
        """Make one attempt in this thread; give the delay in seconds if this thread is to make another."""
        attempt = self.claim()
        if not attempt:
            return None
        try:
            args, kwargs = self.arguments() if self.annotated else (self.args, self.kwargs)
        except Exception as error:  # noqa: BLE001 - an unhashable value for a set, say
            return self.end(attempt, Outcome(None, error))
        timeout = self.task.timeout_seconds
        if timeout is None:
            return self.end(attempt, self.context.run(execute, self, self.task.fn, args, kwargs))
        self.home.timers.call_later(timeout, lambda: self.overrun(attempt, timeout))
        if not self.home.retries_in_place:
            return self.end(attempt, self.context.run(execute, self, self.task.fn, args, kwargs))
        from riverrun._deadlines import interrupted_after

        with interrupted_after(timeout) as deadline:
            outcome = self.context.run(execute, self, self.task.fn, args, kwargs)
        return self.end(attempt, Outcome(None, timed_out(timeout)) if deadline.passed else outcome)

    async def run_async(self) -> None:
        """Run the task on this loop, if nobody has."""
        import anyio

        while (delay := await self.run_async_once()) is not None:
            await anyio.sleep(delay)

    async def run_async_once(self) -> float | None:
        """Make one attempt on this loop; give the delay in seconds if this coroutine is to make another."""
        attempt = self.claim()
        if not attempt:
            return None
        try:
            args, kwargs = self.arguments() if self.annotated else (self.args, self.kwargs)
        except Exception as error:  # noqa: BLE001
            return self.end(attempt, Outcome(None, error))
        with _async.Cancellation() as cancellation:
            self.handle = cancellation
            outcome = await execute_async(self, self.task.fn, args, kwargs, self.task.timeout_seconds)
        delay = self.end(attempt, outcome)
        if outcome.error is not None and _is_cancellation(outcome.error) and not cancellation.requested:
            raise outcome.error  # the loop itself is being stopped, and has to know that we obey
        return delay

    def call(self) -> TaskCall:
        """Make the message for an executor that takes calls, and begin the attempt."""
        args, kwargs = self.arguments()
        run = self.run
        return TaskCall(
            function=self.task,
            args=args,
            kwargs=kwargs,
            scope=TaskScope(run.name, self.log_prints, self.log_fields(), awaits=self.task.is_async),
            key=f"{run.task_name}-{run.id}-{self.attempt}",
            timeout=self.task.timeout_seconds,
            context=self.context,
        )

    def is_running(self) -> bool:
        """Say whether an executor that keeps this to itself has started the call."""
        running = getattr(self.handle, "running", None)
        return running is not None and bool(running())

    def returned(self, attempt: int, future: Future[Outcome]) -> None:
        """Take what an executor's future has."""
        if future.cancelled():
            self.finish(Cancelled("Task run was cancelled."), attempt=attempt)
            return
        error = future.exception()
        if error is not None:
            self._lost(attempt, error)
            return
        outcome = unpack(future.result(), self.run.name)
        if outcome.records:
            _logging.replay(outcome.records, {**self.log_fields(), "worker": outcome.worker})
            outcome.records = None
        if self.run.run_count == 1 and outcome.start_time is not None:
            self.run.start_time = outcome.start_time
        self.end(attempt, outcome)

    def _lost(self, attempt: int, error: BaseException) -> None:
        run = self.run
        lost = WorkerLost(f"Task run {run.name!r} was lost in attempt {run.run_count}: its worker is gone ({error!r}).")
        lost.__cause__ = error
        self.end(attempt, Outcome(None, lost))

    def overrun(self, attempt: int, timeout: float) -> None:
        """Give up an attempt at its deadline: its slot goes to others, and what it still brings is dropped."""
        with self.home.lock:
            if attempt != self.attempt or self.run.state._final:  # noqa: SLF001
                return
            self.attempt = attempt = attempt + 1
        self.context = self.context.copy()  # the old one may be in use as long as the old attempt's thread is
        self._release()
        self.end(attempt, Outcome(None, timed_out(timeout)))

    def _release(self) -> None:
        """Stop the present attempt if that can be done; else let the executor stop counting on it."""
        handle, self.handle = self.handle, None
        if handle is None or handle.cancel() is False:
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
                self.finish(*_returned_state(value), attempt=attempt)
            else:
                if self.task.cache is not None and attempt == self.attempt:
                    self.task.cache.store(self, value)
                self.finish(COMPLETED, value, attempt)
            return None
        state = _failed(error)
        if state.is_failed() or isinstance(error, WorkerLost):
            delay = self._delay_before_retry(attempt, state)
            if delay is not None:
                return self._try_again(attempt, state, delay)
        self.finish(state, attempt=attempt)
        if _must_go_on_raising(error):
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
            except Exception:
                _logging.task_logger.exception(
                    "retry_condition_fn of task run %r raised: it is not tried again.", self.run.name, extra=self.log_fields()
                )
                return None
        return task.retry_delay(self.run.run_count)

    def _try_again(self, attempt: int, state: State, delay: float) -> float | None:
        with self.home.lock:
            if attempt != self.attempt or self.run.state._final:  # noqa: SLF001
                return None
            self.run.state = AwaitingRetry(state.message, state.data)
            self._claimed = self.home.retries_in_place is False
        _logging.task_logger.warning(
            "Task run %r failed in attempt %d of %d and is tried again in %.3g seconds: %s",
            self.run.name, self.run.run_count, self.task.retries + 1, delay, state.message, extra=self.log_fields(),
        )  # fmt: skip
        if self.home.retries_in_place:
            return delay
        if delay:
            self.home.timers.call_later(delay, self.dispatch)
        else:
            self.dispatch()
        return None

    def finish(self, state: State, value: Any = None, attempt: int | None = None) -> bool:
        """Make a state the final one, and tell those who wait for it; false if there is a final one already."""
        run = self.run
        future = self.future
        home = self.home
        quiet = not (home.logs_info or self.gate is not None or self.task.has_hooks or state is not COMPLETED)
        with home.lock:
            if run.state._final or (attempt is not None and attempt != self.attempt):  # noqa: SLF001
                return False
            future._value = value  # noqa: SLF001
            run.end_time = time.time()
            run.state = state
            callbacks = future._callbacks  # noqa: SLF001
            future._callbacks = future._job = None  # noqa: SLF001
            # The inputs go now: what holds on to this object later (a timer, a pool's queue) keeps no data alive.
            self.args = _NOTHING
            self.kwargs = {}
            self._upstreams = _NOTHING
            if quiet and callbacks is None and home._when_idle is None:  # noqa: SLF001
                del home.live[run.number]
                self.future = self.context = None  # type: ignore[assignment]
                return True
        if not quiet:
            self._announce(state)
        if callbacks is not None:
            _cascade(callbacks, future)
        self.future = self.context = None  # type: ignore[assignment]
        home.forget(run.number)
        return True

    def _announce(self, state: State) -> None:
        logger = _logging.task_logger
        level = logging.INFO if state.is_completed() else logging.ERROR if state.is_failed() or state.is_crashed() else logging.WARNING
        if logger.isEnabledFor(level):
            error = state.data if state.is_failed() and isinstance(state.data, BaseException) else None
            if error is not None and not isinstance(error, RunTimeout):
                logger.error("Task run %r encountered an exception:", self.run.name, exc_info=error, extra=self.log_fields())
            logger.log(level, "Task run %r finished in state %r", self.run.name, state, extra=self.log_fields())
        if self.gate is not None:
            self.gate.leave(self)
        for hook in self.task.hooks_for(state):
            run_hook(hook, self.task, self.run, self.future.state)

    # -- from outside

    def help(self) -> None:
        """Run it in the calling thread, if it has not started and a slot is free."""
        if not self._claimed and self.task.timeout_seconds is None and not self.task.is_async:
            helper = self.home.helper
            if helper is not None:
                helper(self)

    def cancel(self) -> bool:
        """Cancel it if it has not started, or if it can be stopped."""
        with self.home.lock:
            if self.run.state._final:  # noqa: SLF001
                return False
            started, handle = self.run.state.is_running(), self.handle
            if handle is None and not started:
                self._claimed = True  # it waits for an upstream, a timer or a slot: from here on nobody starts it
        if handle is not None:
            return bool(handle.cancel())  # the state follows when the executor or the coroutine has stopped
        return not started and self.finish(Cancelled("Task run was cancelled."))

    def abort(self, state: State) -> None:
        """End it now: it takes this state, and what its code still does is nobody's concern."""
        with self.home.lock:
            self.attempt += 1
            running = self._claimed and self.run.state.is_running()
        if running or self.handle is not None:
            self._release()
        else:
            state = Cancelled("Task run was cancelled before it started.")
        self.finish(state)


class NestedHome(Home):
    """Where the runs belong of tasks that are called in the body of a task: they run in place, one by one."""

    def __init__(self, scope: Any) -> None:
        super().__init__(scope.log_prints, getattr(getattr(scope, "home", None), "depth", 0))
        self._scope = scope

    @property
    def label(self) -> str:
        """What to call it in an error."""
        return f"task run {self._scope.name!r}"

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run around it; its own runs put theirs over them."""
        return dict(self._scope.log_fields())


def nested_home(scope: Any) -> Home:
    """Give the home for tasks that are called in the body of a task run."""
    if scope.nested is None:
        from riverrun._dispatch import connect_in_place

        scope.nested = NestedHome(scope)
        connect_in_place(scope.nested)
    home: Home = scope.nested
    return home


def _cascade(callbacks: list[Callable[[TaskFuture[Any]], object]], future: TaskFuture[Any]) -> None:
    """Call the callbacks of a future.

    A callback may end another run, whose callbacks end more: they form a queue here, not a recursion, so that a chain
    of 10,000 runs that are not ready needs no deep stack.
    """
    queue: deque[Any] | None = getattr(_cascading, "queue", None)
    if queue is not None:
        queue.append((callbacks, future))
        return
    queue = _cascading.queue = deque([(callbacks, future)])
    try:
        while queue:
            callbacks, future = queue.popleft()
            for callback in callbacks:
                call_back(callback, future)
    finally:
        _cascading.queue = None


_cascading = threading.local()


def run_hook(hook: Callable[..., object], subject: Any, run: Any, state: State) -> None:
    """Call a hook of the user's; an exception of its is logged, and changes nothing."""
    try:
        hook(subject, run, state)
    except Exception:
        name = _names.function_name(hook)
        _logging.root_logger.exception("Hook %r raised for run %r, which stays in state %r.", name, run.name, state)


def _resolved(upstream: Any, may_fail: bool) -> Any:  # noqa: FBT001
    state = upstream if isinstance(upstream, State) else upstream.state
    return state.data if state.type is StateType.COMPLETED else state.exception()


def _not_ready(upstream: Any, state: State) -> State:
    """Make the state of a run whose upstream did not complete; the root failure goes from run to run."""
    run_id = "unknown" if isinstance(upstream, State) else upstream.task_run_id
    first = f"Upstream task run '{run_id}' did not reach a 'COMPLETED' state."
    if state.is_not_ready():
        root = (state.message or "").partition("state. ")[2]
        return NotReady(f"{first} {root}", state.data)
    what = "State" if isinstance(upstream, State) else f"Task run {upstream.name!r}"
    return NotReady(f"{first} {what} ended as {state!r}.", state.exception())


def _failed(error: BaseException) -> State:
    """Give the state for what an attempt raised."""
    if isinstance(error, RunTimeout):
        return TimedOut(str(error), error)
    if isinstance(error, WorkerLost):
        return Crashed(str(error), error)
    if _must_go_on_raising(error):
        return Crashed(f"Task run was interrupted: {type(error).__name__}.", CrashedRun("Task run was interrupted."))
    if _is_cancellation(error):
        return Cancelled("Task run was cancelled.")
    return Failed(f"Task run encountered an exception: {describe(error)}", error)


def _is_cancellation(error: BaseException) -> bool:
    """Say whether it is asyncio's or trio's way to end a coroutine; neither library is imported for that."""
    return type(error).__name__ in {"CancelledError", "Cancelled"} and not isinstance(error, Exception)


def describe(error: BaseException) -> str:
    """Give an exception's type and text in one line."""
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _crashed(error: CrashedRun, cause: BaseException) -> State:
    error.__cause__ = cause
    return Crashed(str(error), error)


def _must_go_on_raising(error: BaseException) -> bool:
    """Say whether it is an interrupt of the process: it ends the run, and then it goes on to the flow."""
    if threading.current_thread() is not threading.main_thread():
        return False
    return isinstance(error, KeyboardInterrupt) or getattr(error, "is_termination", False)


def _returned_state(state: State) -> tuple[State, Any]:
    """Give the record's state and the value for a task that returned a State of its own."""
    if state.is_completed():
        return state.with_data(None), state.data
    if state.is_final():
        return state, None
    return Failed(f"Task run returned a state that is not final: {state!r}."), None
