"""Where task runs belong, and how they get there.

::

    home.submit(task, args)                        a flow run, or a task run in whose body a task is called
        TaskRun, TaskFuture, PendingRun            record, what the user holds, the machine (`_pending_run`)
        upstreams pending?  --- yes ---> counted; the last upstream's callback goes on
               | no                                        |
        _steps.prepare  <----------------------------------+
               |  an upstream did not complete -> NotReady        value in the cache -> Cached
               v
        home.dispatch.send(run)                    the one place that knows the executor (`_dispatch`)
               v
        try_start -> execute -> end                in whatever thread, loop or process (`_running`)
               |  failed, and may be tried again -> timer -> dispatch
               v
        finish: final state -> callbacks of the future -> dependents become ready -> hooks

Nobody waits here: each step is called by the one before, on the thread where that one ended.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from riverrun import _inputs, _logging, _names, _steps, _timers
from riverrun._dispatch import IN_PLACE, NOT_CONNECTED
from riverrun._endings import not_taken
from riverrun._futures import TaskRun
from riverrun._pending_run import QUEUED, WAITING, PendingRun, Phase
from riverrun._running import Job
from riverrun.exceptions import CancelledError, MissingContextError, ParameterTypeError
from riverrun.states import PENDING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from riverrun import _async
    from riverrun._dispatch import Dispatch
    from riverrun._futures import TaskFuture
    from riverrun._mapping import Source
    from riverrun._observation import Observation
    from riverrun._pending_run import Limiter
    from riverrun._tasks import Task
    from riverrun._timers import Timers
    from riverrun.states import State


class Home:
    """Where task runs belong: a flow run, or a task run in whose body tasks are called."""

    dispatch: Dispatch = NOT_CONNECTED
    """How its task runs get to what runs them."""
    loop: _async.Loop | None = None
    helps = True
    """Whether a thread that waits may run a task itself: not where a time limit or a cancellation has to wake it."""
    events: deque[tuple[Any, ...]] | None = None
    """The last things that happened to its task runs; None where nobody notes them."""
    observed: Observation | None = None
    """What tells observers what happens to its task runs; None where nobody listens to that."""

    def __init__(self, log_prints: bool | None, depth: int) -> None:  # noqa: FBT001 - True or None, as for `execute`
        self.depth = depth
        """How many flow runs are around it."""
        self.id = _names.new_id()
        self.log_prints = log_prints
        self.is_plain = log_prints is None
        """Whether nothing is around the functions of its tasks."""
        self.runs: list[Any] = []
        """The records of all runs, in the order of submission."""
        self.live: dict[int, PendingRun] = {}
        """The runs whose end has not been told to everybody, by number."""
        self.finishing: set[object] = set()
        """What the end of the flow waits for besides: callbacks of users."""
        self.interrupt: BaseException | None = None
        """What interrupted a task that had the thread of the flow's event loop."""
        self.unread: list[Source] = []
        """Generators of maps that have not been read to their end."""
        self.closed: State | None = None
        """Once nothing more may be submitted: the state that says why."""
        self.when_idle_then: Callable[[], object] | None = None
        self.logs_info = _logging.task_logger.isEnabledFor(logging.INFO)
        self.is_watched = False
        """Whether somebody is told of each transition, or notes it."""
        self.is_quiet = not self.logs_info
        """Whether nothing follows from a run that completes but for those who wait for it."""
        self._numbers = itertools.count(1)
        self._indexes: dict[str, itertools.count[int]] = {}
        self._lock = threading.Lock()
        self._timers: Timers | None = None

    @property
    def label(self) -> str:
        """What to call it in an error."""
        raise NotImplementedError

    def log_fields(self) -> dict[str, Any]:
        """Give what log records of its task runs say of it."""
        raise NotImplementedError

    def submit(  # noqa: PLR0917 - the way of every call, in one piece
        self,
        task: Task[Any, Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        wait_for: Iterable[Any] | None = None,
        limiter: Limiter | None = None,
        launch: Callable[[PendingRun], object] | None = None,
    ) -> TaskFuture[Any]:
        """Take a call of a task: give its future at once, and see that it runs when its upstreams are done."""
        if kwargs or not task.least_arguments <= len(args) <= task.most_arguments:
            task.signature.bind(args, kwargs)
        # Looked for before anything is noted down: what a user's own container raises here concerns nobody else.
        given = (*args, *kwargs.values()) if kwargs else args
        found = _inputs.find(given) if given else None
        waits = None if wait_for is None else _inputs.find(checked_wait_for(wait_for, task))
        indexes = self._indexes.get(task.run_key)
        if indexes is None:
            indexes = self._indexes.setdefault(task.run_key, itertools.count())
        number = next(self._numbers)
        run = TaskRun(self, task, number, next(indexes))
        goes = found is None and waits is None and limiter is None and not task.needs_parameters
        pending = Job(self, task, run, args, kwargs, QUEUED if goes else WAITING, found is not None, limiter)
        future = pending.future
        self.live[number] = pending
        if self.closed is not None:  # looked at now, so that the end of the flow sees the run, or the run sees the end
            pending.set_final(self.closed)
            self.live.pop(number, None)
            raise self._refusal(task)
        self.runs.append(run)
        if self.observed is not None:
            self.observed.task_run_state_changed(run, PENDING, time.time())
        if goes and launch is None and not self.logs_info:
            try:  # what `launch` does, for most
                self.dispatch.send(pending)
            except Exception as error:  # noqa: BLE001 - the executor is broken or stopped
                _steps.set_final(pending, not_taken(run.name, error))
            return future
        if launch is not None:
            pending.launch = launch
        if goes:
            _steps.launch(pending)
        else:
            upstreams = found.upstreams if found else []
            if waits:
                upstreams = [*upstreams, *waits.upstreams]
            _steps.await_upstreams(pending, upstreams, early=not waits)
        return future

    def _refusal(self, task: Task[Any, Any]) -> Exception:
        if self.closed is not None and self.closed.is_cancelled():
            return CancelledError(f"Task {task.name!r} was called in {self.label}, which is being cancelled.")
        msg = (
            f"Task {task.name!r} was called in {self.label}, which has ended. Call it while the flow runs, or "
            f"`{task.name}.fn(...)`."
        )
        return MissingContextError(msg)

    @property
    def timers(self) -> Timers:
        """The delays and deadlines of its runs."""
        with self._lock:
            if self._timers is None:
                self._timers = _timers.clock.timers()
            return self._timers

    @property
    def scope(self) -> Any:
        """What hooks and callbacks find around themselves."""
        return self

    def help(self, pending: PendingRun, *, run_it: bool) -> None:
        """Tell the executor that this thread is going to wait; run the task here if it has not started."""
        helper = self.dispatch.helper
        if helper is not None:
            task = pending.task
            here = run_it and self.helps and not task.is_async and task.timeout_seconds is None
            helper(pending if here and pending.phase is Phase.QUEUED else _nothing)

    def cancel(self, pending: PendingRun) -> bool:
        """Cancel a run; say whether that was possible."""
        return _steps.cancel(pending)

    def tell(self, function: Callable[[], object]) -> None:
        """Call what a user gave where it may call tasks and wait for them."""
        self.dispatch.telling.run(function)

    def settled(self, number: int) -> None:
        """Note that everybody has been told of the end of a run."""
        self.live.pop(number, None)
        if self.when_idle_then is not None:
            self.tell_if_idle()

    def stop_timers(self) -> None:
        """End its threads: that of the timers, and those on which what users gave is called."""
        if self._timers is not None:
            self._timers.stop()
        self.dispatch.stop()

    def when_idle(self, then: Callable[[], object]) -> None:
        """Call `then` once, when every run is final and its hooks and callbacks have been called: now, perhaps."""
        self.when_idle_then = then
        self.tell_if_idle()

    def tell_if_idle(self) -> None:
        """Call what waits for the end, if this is the end."""
        if self.live or self.finishing:
            return
        with self._lock:
            # Looked at once more: between the look and the lock, the flow may have submitted more, and begun to wait.
            if self.live or self.finishing:
                return
            then, self.when_idle_then = self.when_idle_then, None
        if then is not None:
            then()


def _nothing() -> None:
    """Stand for a job that this thread is not to run."""


def checked_wait_for(wait_for: Any, task: Task[Any, Any]) -> Iterable[Any]:
    """Give the upstreams of `wait_for=`, or say what is wrong with it."""
    if isinstance(wait_for, (_inputs.Upstream, _inputs.Annotation)) or not isinstance(wait_for, Iterable):
        given = type(wait_for).__name__
        hint = "It takes futures in a list: wait_for=[future]."
        msg = f"Task {task.name!r} was called with wait_for= of type {given}. {hint}"
        raise ParameterTypeError(msg)
    return wait_for


class NestedHome(Home):
    """Where the runs belong of tasks that are called in the body of a task: they run in place, one by one."""

    dispatch = IN_PLACE

    def __init__(self, scope: Any) -> None:
        super().__init__(scope.log_prints, getattr(getattr(scope, "home", None), "depth", 0))
        self._scope = scope

    @property
    def scope(self) -> Any:
        """What hooks and callbacks find around themselves: the run around it."""
        return self._scope

    @property
    def label(self) -> str:
        """What to call it in an error."""
        return f"task run {self._scope.name!r}"

    def log_fields(self) -> dict[str, Any]:
        """Give the fields of the run around it; its own runs put theirs over them."""
        return dict(self._scope.log_fields())

    def close(self) -> None:
        """Run what the body has left to be run: the elements of maps that nobody looked into."""
        for source in list(self.unread):
            source.read_all()
        self.stop_timers()


def nested_home(scope: Any) -> Home:
    """Give the home for tasks that are called in the body of a task run."""
    if scope.nested is None:
        scope.nested = NestedHome(scope)
    home: Home = scope.nested
    return home
